"""Importances are worked out every ten trials and at the end; what goes wrong there ends no worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdsearch.core.records import TrialConfig, Tried
from kdsearch.core.spec import BudgetSpec
from kdsearch.store import reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.studies import NewStudy
from kdsearch.worker import importance
from kdsearch.worker.context import Progress, WorkerContext
from kdsearch.worker.importance import Importances


def tried(number: int, state: Any = "complete") -> Tried:
    config = TrialConfig(
        student="textcnn",
        student_params={"filters": (64, 128)[number % 2]},
        scheme="none",
        scheme_params={},
        learning_rate=0.001 * (1 + number % 7),
        batch_size=32,
        epochs=1,
        seed=1,
    )
    latency_ms = (1.0, 2.0)[number % 2]
    quality = config.learning_rate * 100 if state == "complete" else None
    return Tried(
        number=number, config=config, state=state, latency_ms=latency_ms, qualities={}, quality=quality
    )


class Worker:
    """What working out importances needs of one."""

    def __init__(self, store: Store) -> None:
        new = NewStudy(
            name="matters",
            optuna_name="matters",
            spec_text="",
            spec_json={},
            spec_sha256="0" * 64,
            dataset_sha256="1" * 64,
            data_fingerprint="",
            artifacts_url=store.artifacts_url,
            budget=BudgetSpec(),
        )
        study = studies.create_study(store.engine, new)
        self.store, self.study_id, self.trials = store, study.id, list[Tried]()
        history = SimpleNamespace(read=lambda engine: self.trials)
        context = SimpleNamespace(store=store, study=study, history=history, progress=Progress())
        self.importances = Importances(cast(WorkerContext, context))

    def look(self, complete: int, *, at_end: bool = False) -> list[int]:
        """So many trials are complete and two failed; of how many importances are known then."""
        self.trials = [*map(tried, range(complete)), tried(complete, "failed"), tried(complete + 1, "failed")]
        self.importances.look(at_end=at_end)
        return [row.num_trials for row in reads.importances(self.store.engine, self.study_id)]


def test_they_are_due_every_ten_trials_and_at_the_end(store: Store) -> None:
    worker = Worker(store)
    assert worker.look(9, at_end=True) == []
    assert worker.look(12) == [12, 12]
    assert worker.look(21) == [12, 12]
    assert worker.look(22) == [22, 22]
    assert worker.look(23, at_end=True) == [23, 23]
    quality, latency = reads.importances(store.engine, worker.study_id)
    assert next(iter(quality.importances)) == "learning_rate"
    assert next(iter(latency.importances)) == "textcnn.filters"


def test_a_large_study_waits_for_a_tenth_more(store: Store) -> None:
    worker = Worker(store)
    assert worker.look(200) == [200, 200]
    assert worker.look(215) == [200, 200]
    assert worker.look(225) == [225, 225]


def test_whatever_goes_wrong_is_no_error_of_the_worker(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> dict[str, float]:
        raise ValueError("singular")

    worker = Worker(store)
    monkeypatch.setattr(importance, "importances", broken)
    assert worker.look(20) == []


def test_a_worker_that_took_too_long_leaves_it_to_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(store)
    monkeypatch.setattr(importance, "LONGEST_S", 0.0)
    assert worker.look(20) == [20, 20]
    assert worker.look(40) == [20, 20]
