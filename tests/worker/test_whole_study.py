"""A study from its file to its front: exact budget, controls, and Optuna told the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest

from kdsearch.core.errors import TooManyFailuresError, VerificationError
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.teachers import signals
from kdsearch.worker import trial as trial_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


def test_a_study_ends_with_exactly_its_budget(store: Store, write_study: Write, finish: Finish) -> None:
    assert finish(write_study(trials=5)) == "done"
    study = reads.study(store.engine, "tiny")
    trials = reads.trials(store.engine, study.id)
    assert [t.number for t in trials] == [0, 1, 2, 3, 4]
    assert {t.state for t in trials} == {"complete"}
    assert study.state == "done"
    assert study.teacher is not None
    assert study.teacher.latency is not None


def test_controls_come_first_for_every_student(store: Store, write_study: Write, finish: Finish) -> None:
    finish(write_study(trials=4))
    trials = reads.trials(store.engine, reads.study(store.engine, "tiny").id)
    assert [(t.student, t.scheme) for t in trials] == [
        ("textcnn", "none"),
        ("bag", "none"),
        ("textcnn", "offline"),
        ("bag", "offline"),
    ]


def test_optuna_holds_the_same_values(store: Store, write_study: Write, finish: Finish) -> None:
    finish(write_study(trials=5))
    ours = reads.trials(store.engine, reads.study(store.engine, "tiny").id)
    theirs = optuna.load_study(study_name="tiny", storage=optuna_storage(store)).trials
    assert [t.values for t in theirs] == [[t.quality, t.latency_ms] for t in ours]
    assert {t.state for t in theirs} == {optuna.trial.TrialState.COMPLETE}


def test_every_epoch_is_on_record_and_the_best_is_the_result(
    store: Store, write_study: Write, finish: Finish
) -> None:
    finish(write_study(trials=2, epochs=3))
    study = reads.study(store.engine, "tiny")
    for row in reads.trials(store.engine, study.id):
        epochs = reads.epochs(store.engine, study.id, row.number)
        assert [e.epoch for e in epochs] == [1, 2, 3]
        assert [e.rows_seen for e in epochs] == [160, 320, 480]
        assert row.quality == max(e.scores.quality for e in epochs if e.scores)


def test_what_cannot_fit_the_budget_is_rejected_before_training(
    store: Store, write_study: Write, finish: Finish
) -> None:
    """Each architecture is measured once; what is known to be too slow is not even asked for."""
    assert finish(write_study(trials=9, max_ms=1e-6)) == "done"
    study = reads.study(store.engine, "tiny")
    trials = reads.trials(store.engine, study.id)
    assert [(t.student, t.state) for t in trials] == [("textcnn", "rejected"), ("bag", "rejected")]
    for trial in trials:
        assert not reads.epochs(store.engine, study.id, trial.number)
        (row,) = reads.decisions(store.engine, study.id, trial.number)
        assert (row.decision.action, row.decision.rule) == ("reject", "latency")
        assert row.decision.inputs["latency_ms"] == trial.latency_ms
    told = optuna.load_study(study_name="tiny", storage=optuna_storage(store)).trials
    pruned = [t for t in told if t.state == optuna.trial.TrialState.PRUNED]
    assert [t.number for t in pruned] == [0, 1]
    assert all(t.constraints["latency_ms"] > 0 for t in pruned)


def test_raising_the_budget_goes_on_and_a_second_run_does_nothing(
    store: Store, write_study: Write, finish: Finish
) -> None:
    for trials in (2, 2, 4):
        finish(write_study(trials=trials))
        assert len(reads.trials(store.engine, reads.study(store.engine, "tiny").id)) == trials


def test_too_many_failures_end_the_study(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the student caught fire")

    monkeypatch.setattr(trial_module, "fit", explode)
    record = create_or_resume(store, write_study(trials=9, failed=2), on_progress=lambda _: None)
    with pytest.raises(TooManyFailuresError, match="3 trials"):
        work(store, record.name, options=options, should_stop=lambda: False)
    failed = reads.trials(store.engine, record.id)
    assert [t.state for t in failed] == ["failed"] * 3
    assert all("caught fire" in t.failure.message and "explode" in t.failure.traceback for t in failed)


def test_a_second_study_reuses_teacher_and_signals(
    store: Store, write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(write_study("first", trials=1))

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("asked the teacher again")

    monkeypatch.setattr("kdsearch.worker.tuning.fit", never)
    monkeypatch.setattr("kdsearch.worker.signals.Labeller._keep", never)
    finish(write_study("second", trials=1))
    first, second = (_prepared(store, name) for name in ("first", "second"))
    assert first.teacher == second.teacher
    assert {n: p.logits for n, p in first.pools.items()} == {n: p.logits for n, p in second.pools.items()}


def test_signals_of_other_texts_are_found_out(
    store: Store, write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classic accident: a cache whose rows belong to other texts."""
    original = signals.lookup

    def shuffled(*args: Any) -> Any:
        logits, missing = original(*args)
        return logits[::-1].copy(), missing

    monkeypatch.setattr(signals, "lookup", shuffled)
    trained = ("finetune: {epochs: 1, learning_rate: 1e-3", "finetune: {epochs: 30, learning_rate: 3e-3")
    with pytest.raises(VerificationError, match="cached signals of row"):
        finish(write_study(trials=1, replace=trained))
    study = reads.study(store.engine, "tiny")
    assert "cached signals" in str(reads.preparation(store.engine, study.id).error)


def _prepared(store: Store, name: str) -> Prepared:
    sha256 = reads.study(store.engine, name).prepared
    assert sha256 is not None
    return Prepared.load(store.blobs, sha256)


def test_a_study_that_is_deleted_before_it_is_prepared_is_left_in_peace(
    store: Store, options: WorkerOptions, write_study: Write
) -> None:
    create_or_resume(store, write_study(trials=1), on_progress=lambda _: None)
    asked = []

    def should_stop() -> bool:
        if not asked:
            with store.engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM kdsearch.study")
        asked.append(True)
        return False

    assert work(store, "tiny", options=options, should_stop=should_stop) == "deleted"
