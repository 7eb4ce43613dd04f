"""Workers that hang or do not leave when told: processes, ended by their own watchdog."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from kdsearch.core.studyfile import StudyFile
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.worker import watchdog
from kdsearch.worker.context import Progress, WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import open_context, work
from kdsearch.worker.watchdog import Watchdog

Write = Callable[..., StudyFile]
SCRIPT = Path(__file__).with_name("faulty_worker.py")


@pytest.fixture
def prepared(store: Store, write_study: Write, options: WorkerOptions) -> int:
    """A study of one trial, prepared; its id."""
    record = create_or_resume(store, write_study(trials=1), on_progress=lambda _: None)

    def is_prepared() -> bool:
        return reads.study(store.engine, "tiny").prepared is not None

    assert work(store, "tiny", options=options, should_stop=is_prepared) == "stopped"
    return record.id


@contextmanager
def faulty(store: Store, options: WorkerOptions, fault: str) -> Iterator[subprocess.Popen[str]]:
    """A worker whose fault has struck."""
    arguments = [store.url, store.artifacts_url, str(store.home), str(options.lock_folder), "tiny", fault]
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            said = []
            for line in child.stdout:
                said.append(line)
                if line == "struck\n":
                    break
            assert said[-1:] == ["struck\n"], "".join(said)
            yield child
        finally:
            child.kill()


def deaths(store: Store) -> int:
    with store.engine.connect() as conn:
        return int(conn.execute(text("SELECT sum(deaths) FROM kdsearch.trial")).scalar_one())


def test_a_worker_that_hangs_is_ended_and_says_where(
    store: Store, prepared: int, options: WorkerOptions
) -> None:
    with faulty(store, options, "hang") as child:
        said, _ = child.communicate(timeout=300)
        assert child.returncode == 1, said
    assert "stuck_in_a_library" in said
    assert (reads.trial(store.engine, prepared, 0).state, deaths(store)) == ("waiting", 1)
    (attempt,) = reads.attempts(store.engine, prepared, 0)
    assert attempt.ended == "hang"
    assert "stuck_in_a_library" in attempt.traceback
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
    assert reads.trial(store.engine, prepared, 0).state == "complete"


@pytest.mark.parametrize("fault", ["library", "database"])
def test_a_worker_that_is_told_to_leave_leaves_what_it_is_in(
    store: Store, prepared: int, options: WorkerOptions, fault: str
) -> None:
    with faulty(store, options, fault) as child:
        assert reads.trial(store.engine, prepared, 0).state == "running"
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=300)  # the fault lasts for 300 s
        assert child.returncode == 143, said
    assert (reads.trial(store.engine, prepared, 0).state, deaths(store)) == ("waiting", 0)


def test_a_worker_that_was_stopped_beyond_its_lease_lets_go(
    store: Store, prepared: int, options: WorkerOptions
) -> None:
    """It wakes up holding the host lock, with an epoch under way to the database."""
    with faulty(store, options, "slow") as child:
        child.send_signal(signal.SIGSTOP)
        with store.engine.begin() as conn:
            conn.execute(text("UPDATE kdsearch.trial SET expires_at = clock_timestamp() - interval '1 s'"))
            conn.execute(text("UPDATE kdsearch.worker SET seen_at = clock_timestamp() - interval '1 hour'"))
        assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
        before = reads.trial(store.engine, prepared, 0)
        child.send_signal(signal.SIGCONT)
        said, _ = child.communicate(timeout=300)
        assert child.returncode == 0, said
    assert "another worker has this trial now" in said
    assert reads.trial(store.engine, prepared, 0) == before
    ends = [row.ended for row in reads.attempts(store.engine, prepared, 0)]
    assert ends == ["lost", "finished"]


def test_a_process_that_was_stopped_did_not_hang(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps by an hour while this thread does not run counts as one look."""
    create_or_resume(store, write_study(), on_progress=lambda _: None)
    context = open_context(store, "tiny", options, lambda: False)
    looks, ended = [], []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            looks.append(time.monotonic())
            return 3600.0 * len(looks)

    monkeypatch.setattr(watchdog, "time", Clock)
    monkeypatch.setattr(watchdog, "LOOK_S", 0.001)
    monkeypatch.setattr(watchdog, "_end", ended.append)
    with Watchdog(context, give_back=lambda: None, fail=lambda _: None).watching():
        deadline = time.monotonic() + 60
        while len(looks) < 50:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert ended == []


def test_asking_whether_to_stop_is_a_step() -> None:
    progress = Progress()
    asked = progress.asking(lambda: True)
    assert asked()
    assert progress.steps == 1
