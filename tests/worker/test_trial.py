"""What becomes of a trial that is judged, out of time, out of memory, or whose state is damaged."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sqlalchemy import Engine, text

from kdsearch.core.records import Decision
from kdsearch.core.studyfile import StudyFile
from kdsearch.store import reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.leftovers import left_checkpoints
from kdsearch.worker import closing as closing_module
from kdsearch.worker import pulse as pulse_module
from kdsearch.worker import rungs
from kdsearch.worker import trial as trial_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import open_context, work
from kdsearch.worker.pulse import Pulse

Write = Callable[..., StudyFile]


class Flag:
    """Turns true when raised."""

    def __init__(self) -> None:
        self.up = False

    def __call__(self) -> bool:
        return self.up


def begun(store: Store, file: StudyFile) -> int:
    return create_or_resume(store, file, on_progress=lambda _: None).id


def rules(store: Store, study_id: int, number: int) -> list[tuple[str, str]]:
    found = reads.decisions(store.engine, study_id, number)
    return [(row.decision.action, row.decision.rule) for row in found]


def ends(store: Store, study_id: int, number: int) -> list[str | None]:
    return [row.ended for row in reads.attempts(store.engine, study_id, number)]


def test_out_of_memory_is_tried_once_in_pieces_and_then_recorded_as_infeasible(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, tried = trial_module.fit, []

    def full(module: Any, *args: Any, settings: Any, **kwargs: Any) -> Any:
        first = not any(batch is module for batch, _ in tried)
        tried.append((module, settings.accumulate))
        if settings.accumulate == 1 or len(tried) > 2:
            assert first, "every attempt builds its student anew"
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(module, *args, settings=settings, **kwargs)

    monkeypatch.setattr(trial_module, "fit", full)
    study_id = begun(store, write_study(trials=2))
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
    assert [accumulate for _, accumulate in tried] == [1, 2, 1, 2]
    fits, too_large = reads.trials(store.engine, study_id)
    assert (fits.state, too_large.state) == ("complete", "rejected")
    assert ends(store, study_id, 0) == ["out_of_memory", "finished"]
    assert "CUDA out of memory" in reads.attempts(store.engine, study_id, 0)[0].traceback
    assert rules(store, study_id, 0) == [("retry", "out_of_memory")]
    assert rules(store, study_id, 1) == [("retry", "out_of_memory"), ("reject", "out_of_memory")]
    with store.engine.begin() as conn:
        found = conn.execute(text("SELECT constraints FROM kdsearch.trial WHERE number = 1")).scalar_one()
        assert found["memory"] == 1.0
        assert found["latency_ms"] < 0
        assert studies.budget_state(conn, study_id).num_failed == 0


def test_a_judge_pauses_after_the_epoch_is_on_record(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Decision(action="pause", rule="test", reason="enough", epoch=2, inputs={"gap": 0.5})
    go_on = Decision(action="continue", rule="test", reason="not yet", epoch=1)
    asked = []

    def judge(self: Any, report: Any) -> Decision:
        asked.append(report.epoch)
        return {1: go_on, 2: pause}[report.epoch]

    monkeypatch.setattr(rungs.Judge, "__call__", judge)
    study_id = begun(store, write_study(trials=1, epochs=4))
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
    assert asked == [1, 2]
    assert [row.epoch for row in reads.epochs(store.engine, study_id, 0)] == [1, 2]
    assert rules(store, study_id, 0)[:2] == [("continue", "test"), ("pause", "test")]
    assert ends(store, study_id, 0) == ["paused"]
    assert reads.trial(store.engine, study_id, 0).state == "stopped"  # the study ended meanwhile


def test_a_trial_is_paused_with_its_checkpoint_when_the_hours_are_spent(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = WorkerOptions(lock_folder=options.lock_folder, poll_s=0.05, lease_s=30.0)
    monkeypatch.setattr(pulse_module.Pulse, "BEATS", 300)
    original = trial_module.fit

    def spent(*args: Any, on_epoch: Any, should_stop: Callable[[], bool], **kwargs: Any) -> Any:
        def finished(report: Any, state: bytes) -> None:
            on_epoch(report, state)
            with store.engine.begin() as conn:
                conn.execute(text("UPDATE kdsearch.study SET active_seconds = 1e6"))
            while not should_stop():
                time.sleep(0.01)

        return original(*args, on_epoch=finished, should_stop=should_stop, **kwargs)

    left: list[list[str]] = []

    def noted(engine: Engine, study_id: int) -> list[str]:
        left.append(left_checkpoints(engine, study_id))
        return left[-1]

    monkeypatch.setattr(trial_module, "fit", spent)
    monkeypatch.setattr(closing_module, "left_checkpoints", noted)  # asked when the study closes
    file = write_study(trials=3, epochs=3, replace=("budget: {", "budget: {hours: 100, "))
    study_id = begun(store, file)
    assert work(store, "tiny", options=quick, should_stop=lambda: False) == "done"
    assert rules(store, study_id, 0)[0] == ("pause", "budget")
    assert len(reads.trials(store.engine, study_id)) == 1, "no further trial was begun"
    (dropped,) = left
    assert dropped, "it was paused without a checkpoint"
    assert [row.epoch for row in reads.epochs(store.engine, study_id, 0)] == [1]


def test_a_damaged_checkpoint_costs_one_interval(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = begun(store, write_study(trials=1, epochs=3))
    stop, resumed, epochs = Flag(), [], []
    original = trial_module.fit

    def watched(*args: Any, **kwargs: Any) -> Any:
        resumed.append(kwargs["resume"])
        on_epoch = kwargs["on_epoch"]

        def stop_after_two(report: Any, state: bytes) -> None:
            on_epoch(report, state)
            epochs.append(report.epoch)
            stop.up = len(epochs) == 2

        return original(*args, **{**kwargs, "on_epoch": stop_after_two})

    monkeypatch.setattr(trial_module, "fit", watched)
    assert work(store, "tiny", options=options, should_stop=stop) == "stopped"
    with store.engine.connect() as conn:
        row = conn.execute(text("SELECT state, checkpoint, previous_checkpoint FROM kdsearch.trial")).one()
    assert row.state == "waiting"
    path = store.blobs.open(row.checkpoint)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    previous = store.blobs.open(row.previous_checkpoint).read_bytes()
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
    assert resumed[0] is None
    assert previous.endswith(resumed[1])
    assert epochs == [1, 2, 2, 3]
    assert reads.trial(store.engine, study_id, 0).state == "complete"


def test_busy_gpus_and_deleted_studies_are_noticed(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []
    monkeypatch.setattr(studies, "touch_gpu", lambda engine, worker_id: touched.append(worker_id))
    begun(store, write_study())
    on_cpu = Pulse(open_context(store, "tiny", options, lambda: False))
    gpu = WorkerOptions(lock_folder=options.lock_folder, device="cuda:0")
    context = open_context(store, "tiny", gpu, lambda: False)
    on_gpu = Pulse(context)
    on_gpu._beat()
    with on_cpu.holding(lambda: None):
        on_cpu._beat()
    assert touched == [], "nothing is counted on a CPU, or while nothing runs"
    with on_gpu.holding(lambda: None):
        on_gpu._beat()
    assert touched == [context.worker_id]
    assert not on_gpu.deleted
    with store.engine.begin() as conn:
        conn.execute(text("DELETE FROM kdsearch.worker"))
        conn.execute(text("DELETE FROM kdsearch.preparation"))
        conn.execute(text("DELETE FROM kdsearch.study"))
    on_gpu._beat()
    assert on_gpu.deleted
