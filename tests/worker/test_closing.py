"""The end of a study: finalists with further seeds, and how sure the front is."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from kdsearch.core.studyfile import StudyFile
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage

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
