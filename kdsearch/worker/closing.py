"""The end of a study: who is trained again with further seeds, and how sure the front is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import structlog

from kdsearch.core.errors import ArtifactError, StorageError
from kdsearch.core.pareto import staircase
from kdsearch.core.records import Tried
from kdsearch.core.spec import StudySpec
from kdsearch.measure.standing import Entry, standings
from kdsearch.search import finalists
from kdsearch.store import reads
from kdsearch.store.leftovers import forget_checkpoints, left_checkpoints
from kdsearch.store.reads import TrialRow
from kdsearch.store.rows import RepeatRow
from kdsearch.store.standings import set_standings
from kdsearch.worker.material import Material

MOST_COMPARED = 100
"""Trials whose place is computed: the front and what is nearest to it."""

log = structlog.get_logger()


def wanted_seeds(spec: StudySpec, tried: Sequence[Tried], floor: float) -> list[tuple[int, int]]:
    """Trial number and seed of every further training: a seed of all finalists before the next seed."""
    if spec.finalists is None:
        return []
    worth = [trial for trial in tried if trial.quality is not None and trial.quality >= floor]
    chosen = finalists.choose(worth or tried, spec.finalists)
    return [(number, seed) for seed in spec.finalists.seeds for number in chosen]


def put_standings(material: Material) -> None:
    """Put on record how sure the front is.

    Where finalists were trained again they alone are compared: beside their means the single trainings of
    the others would look better than they are.
    """
    context, prepared = material.context, material.prepared
    engine, study_id = context.store.engine, context.study.id
    rows = [row for row in reads.trials(engine, study_id, "complete") if row.latency_ms is not None]
    repeats = [row for row in reads.repeats(engine, study_id) if row.state == "complete"]
    again = {row.number for row in repeats}
    finalists_alone = [row for row in rows if row.number in again] if context.spec.finalists else []
    compared = finalists_alone or nearest(rows, again)
    found = standings(
        list(_entries(material, compared, repeats)),
        material.validation_labels,
        labels=prepared.labels,
        objective=context.spec.objectives.quality,
    )
    set_standings(engine, study_id, found)


def drop_checkpoints(material: Material) -> None:
    """Nobody goes on with a trial that was stopped or has failed: its checkpoints only cost room."""
    context = material.context
    engine, study_id = context.store.engine, context.study.id
    try:
        for sha256 in left_checkpoints(engine, study_id):
            context.store.blobs.remove(sha256)
        forget_checkpoints(engine, study_id)
    except StorageError as error:
        log.warning("checkpoints of trials that have ended stay", error=error.what)


def nearest(rows: Sequence[TrialRow], again: Collection[int] = ()) -> list[TrialRow]:
    """The front and the trials that lie the least below it, by number; those of ``again`` in any case."""
    points = [(row.quality or 0.0, row.latency_ms or 0.0) for row in rows]
    gaps = {row.number: staircase(points, row.latency_ms or 0.0) - (row.quality or 0.0) for row in rows}
    by_gap = sorted(rows, key=lambda row: (row.number not in again, gaps[row.number], row.number))
    kept = by_gap[:MOST_COMPARED]
    return sorted(kept, key=lambda row: row.number)


def _entries(material: Material, rows: Iterable[TrialRow], repeats: Sequence[RepeatRow]) -> Iterator[Entry]:
    seed = material.context.spec.training.seed
    for row in rows:
        trained = {seed: row.validation_logits}
        trained |= {one.seed: one.validation_logits for one in repeats if one.number == row.number}
        stored = {s: _stored(material, sha256, row.number) for s, sha256 in trained.items() if sha256}
        logits = {s: found for s, found in stored.items() if found is not None}
        if logits:
            yield Entry(number=row.number, latency_ms=row.latency_ms or 0.0, logits_by_seed=logits)


def _stored(material: Material, sha256: str, number: int) -> npt.NDArray[np.float32] | None:
    """Validation logits; None where they are lost."""
    blobs = material.context.store.blobs
    try:
        found: npt.NDArray[np.float32] = np.load(blobs.open(sha256), allow_pickle=False)
    except ArtifactError as error:
        blobs.exists(sha256)  # raises where it is the store that is away
        log.warning("what a trial said is lost: its place stays unknown", trial=number, error=error.what)
        return None
    return found
