"""One trial with everything that happened to it, read at one moment."""

from __future__ import annotations

from sqlalchemy import Engine

from dashboard import story
from dashboard.queries.studies import Snapshot
from dashboard.story import Story
from kdsearch.store import particulars, reads


def read(engine: Engine, snapshot: Snapshot, number: int) -> Story:
    """NotFoundError if there is no such trial."""
    study_id = snapshot.study.id
    trial = reads.trial(engine, study_id, number)
    repeats = [repeat for repeat in reads.repeats(engine, study_id) if repeat.number == number]
    return Story(
        trial=trial,
        epochs=reads.epochs(engine, study_id, number),
        decisions=reads.decisions(engine, study_id, number),
        attempts=reads.attempts(engine, study_id, number),
        repeats=repeats,
        standing=snapshot.standings.get(number),
        artifact_bytes=particulars.artifact_bytes(engine, story.digests(trial, repeats)),
    )
