"""A worker that is to stop lets go wherever it is: it waits, measures, labels, trains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kdsearch.core.errors import TooManyFailuresError
from kdsearch.core.studyfile import StudyFile
from kdsearch.measure import hostlock
from kdsearch.measure.hostlock import HostLock
from kdsearch.store import leases, preparations, reads, telling, workers
from kdsearch.store.connect import Store
from kdsearch.worker import measuring
from kdsearch.worker import preparing as preparing_module
from kdsearch.worker import signals as signals_module
from kdsearch.worker import trial as trial_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import open_context, work
from kdsearch.worker.pulse import Pulse

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


class Flag:
    """Turns true when raised."""

    def __init__(self) -> None:
        self.up = False

    def __call__(self) -> bool:
        return self.up


def started(store: Store, file: StudyFile) -> int:
    return create_or_resume(store, file, on_progress=lambda _: None).id


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that does not let go trains after a second, not after ten minutes."""
    monkeypatch.setattr(hostlock, "TRAINER_PATIENCE_S", 1.0)


@pytest.mark.usefixtures("soon")
def test_it_does_not_wait_for_a_measurer(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(write_study("first", trials=1))
    study_id = started(store, write_study(trials=1))
    stop = Flag()

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it trained although it was to stop")

    def measured(*args: Any, **kwargs: Any) -> Any:
        stop.up = True
        return original(*args, **kwargs)

    original = leases.record_latency
    monkeypatch.setattr(leases, "record_latency", measured)
    monkeypatch.setattr(trial_module, "fit", never)
    # the preparation is over at once, for teacher and signals are known; then the trial meets the lock
    work_prepared(store, options)
    with HostLock(options.lock_folder).measuring(5) as alone:
        assert alone
        assert work(store, "tiny", options=options, should_stop=stop) == "stopped"
    row = reads.trial(store.engine, study_id, 0)
    assert (row.state, row.failure) == ("waiting", None)


def work_prepared(store: Store, options: WorkerOptions) -> None:
    """Prepare the study and stop before its first trial."""

    def is_prepared() -> bool:
        return reads.study(store.engine, "tiny").prepared is not None

    assert work(store, "tiny", options=options, should_stop=is_prepared) == "stopped"


def test_a_measuring_that_is_interrupted_gives_the_trial_back(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = started(store, write_study(trials=1))
    work_prepared(store, options)
    stop = Flag()

    def stop_meanwhile(*args: Any, **kwargs: Any) -> None:
        stop.up = True
        lock: HostLock = args[4]
        lock.interrupt()
        raise AssertionError("it measured although it was to stop")

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "measure_latency", stop_meanwhile)
        assert work(store, "tiny", options=options, should_stop=stop) == "stopped"
    row = reads.trial(store.engine, study_id, 0)
    assert (row.state, row.failure) == ("waiting", None)
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"


def test_a_teacher_that_labels_for_long_is_interrupted(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = started(store, write_study(trials=1))
    stop = Flag()

    def endless(*args: Any, breathe: Callable[[], None], **kwargs: Any) -> None:
        stop.up = True
        for _ in range(1000):
            breathe()
        raise AssertionError("it went on although it was to stop")

    with monkeypatch.context() as patch:
        patch.setattr(signals_module.signals, "compute_shard", endless)
        assert work(store, "tiny", options=options, should_stop=stop) == "stopped"
    assert reads.preparation(store.engine, study_id).state == "waiting"
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"


def test_the_pulse_outlives_what_nobody_expected(
    store: Store, write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(store, write_study())
    again, beats = threading.Event(), []

    def stumble(*args: Any) -> None:
        beats.append(args)
        if len(beats) > 1:
            again.set()
        raise RuntimeError("stumbled")

    monkeypatch.setattr(workers, "seen", stumble)
    options = WorkerOptions(lease_s=0.06)
    pulse = Pulse(open_context(store, "tiny", options, lambda: False))
    with pulse.beating():
        assert again.wait(30)


def test_a_trial_that_is_given_up_when_the_study_ends_is_on_record(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions
) -> None:
    """The sweep that finds one death too many must not be undone by the error that it leads to."""
    finish(write_study(trials=1, failed=0))
    study_id = started(store, write_study(trials=1, failed=0))
    dead = (
        "UPDATE kdsearch.trial SET state = 'running', finished_at = NULL, told = false, deaths = 2, "
        "expires_at = clock_timestamp() - interval '1 second'"
    )
    with store.engine.begin() as conn:
        conn.execute(text(dead))
    with pytest.raises(TooManyFailuresError):
        work(store, "tiny", options=options, should_stop=lambda: False)
    assert reads.trial(store.engine, study_id, 0).state == "failed"


def test_the_last_trial_given_up_is_told(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions
) -> None:
    finish(write_study(trials=1))
    study_id = started(store, write_study(trials=1))
    dead = (
        "UPDATE kdsearch.trial SET state = 'running', finished_at = NULL, told = false, deaths = 2, "
        "expires_at = clock_timestamp() - interval '1 second'"
    )
    with store.engine.begin() as conn:
        conn.execute(text(dead))
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
    assert telling.untold(store.engine, study_id) == []


def test_stopping_at_an_anchor_leaves_one_checkpoint(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started(store, write_study(trials=1))
    stop, kept = Flag(), []
    original = preparations.preparation_progress

    def stop_at_the_second_anchor(*args: Any) -> None:
        original(*args)
        kept.extend(checkpoint for checkpoint in args[3:] if checkpoint)
        stop.up = len(kept) == 2

    def checkpoints() -> list[Path]:
        files = (path for path in (tmp_path / "artifacts").rglob("*") if path.is_file())
        return [path for path in files if path.read_bytes().startswith(b"kdsearch checkpoint of")]

    with monkeypatch.context() as patch:
        patch.setattr(preparing_module.preparations, "preparation_progress", stop_at_the_second_anchor)
        assert work(store, "tiny", options=options, should_stop=stop) == "stopped"
    assert len(checkpoints()) <= 1
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
    assert checkpoints() == []
