"""The end of a study: finalists with further seeds, and how sure the front is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import optuna
import pytest

from kdsearch.core.errors import ArtifactError
from kdsearch.core.studyfile import StudyFile
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.worker import closing
from kdsearch.worker.material import Material

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]
FURTHER = """\
finalists: {max: 2, seeds: [1, 5, 2]}
search: {quality_floor: 0.0}
schemes: [none, joint_isolated]
budget: {trials: 3"""


def test_finalists_follow_their_seed_and_the_front_is_computed(
    store: Store, write_study: Write, finish: Finish
) -> None:
    """Seed 5 is the study's own: that training is there already."""
    text = ("budget: {trials: 3", FURTHER)
    assert finish(write_study(trials=3, replace=text)) == "done"
    study = reads.study(store.engine, "tiny")
    repeats = reads.repeats(store.engine, study.id)
    assert {row.state for row in repeats} == {"complete"}, [row.failure for row in repeats]
    numbers = {row.number for row in repeats}
    assert sorted((r.number, r.seed) for r in repeats) == sorted((n, s) for n in numbers for s in (1, 2))
    standings = reads.standings(store.engine, study.id)
    assert {s.number for s in standings} == numbers
    for standing in standings:
        assert standing.seeds == (1, 2, 5)
        assert standing.low <= standing.quality <= standing.high
        own = [reads.trial(store.engine, study.id, standing.number).quality]
        own += [row.quality for row in repeats if row.number == standing.number]
        assert abs(standing.quality - sum(q for q in own if q is not None) / 3) < 1e-9
    assert len(reads.trials(store.engine, study.id)) == 3
    told = optuna.load_study(study_name="tiny", storage=optuna_storage(store)).trials
    assert len(told) == 3, "Optuna hears of no repeat"


@pytest.mark.parametrize("away", [False, True])
def test_checkpoints_of_who_was_stopped_are_removed_and_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    left = [store.blobs.put(state) for state in (b"newest", b"before")]
    monkeypatch.setattr(closing, "left_checkpoints", lambda engine, study_id: left)
    forgotten: list[int] = []
    monkeypatch.setattr(closing, "forget_checkpoints", lambda engine, study_id: forgotten.append(study_id))
    if away:

        def refuse(self: object, sha256: str) -> None:
            raise ArtifactError("Cannot remove from artifacts") from PermissionError("not yours")

        monkeypatch.setattr(type(store.blobs), "remove", refuse)
    material = SimpleNamespace(context=SimpleNamespace(store=store, study=SimpleNamespace(id=7)))
    closing.drop_checkpoints(cast(Material, material))  # a store that refuses ends no worker
    assert [store.blobs.exists(sha256) for sha256 in left] == [away, away]
    assert forgotten == ([] if away else [7])
