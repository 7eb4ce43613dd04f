"""HostLock among real processes: measuring excludes training, is never starved, and dies with its process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdsearch.core.errors import UsageError
from kdsearch.measure import hostlock
from kdsearch.measure.hostlock import HostLock, lock_folder

PYTHONPATH = str(Path(hostlock.__file__).parents[2])  # also where the package is not installed
HOLDER = Path(__file__).with_name("holder.py")
Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts holders of the lock in tmp_path/locks; they end when tmp_path/stop exists, or the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(what: str, stop: str = "stop") -> subprocess.Popen[str]:
        command = [sys.executable, str(HOLDER), what, str(tmp_path / "locks"), str(tmp_path / stop)]
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def test_trainers_share_and_never_starve_a_measurer(start: Start, tmp_path: Path) -> None:
    trainers = [start("train") for _ in range(3)]
    assert [said(trainer) for trainer in trainers] == ["training"] * 3
    for _ in range(3):
        with HostLock(tmp_path / "locks").measuring(30) as alone:
            assert alone


def test_shared_and_exclusive_holders_alone_would_starve_it(tmp_path: Path, start: Start) -> None:
    """Why there is a gate: with one trainer always inside, the host lock is never free by itself."""
    trainers = [start("train") for _ in range(2)]
    assert [said(trainer) for trainer in trainers] == ["training"] * 2
    with (tmp_path / "locks" / "host.lock").open() as host:
        assert not hostlock._take(host.fileno(), hostlock.fcntl.LOCK_EX, 0.2)


def test_measuring_keeps_trainers_out_until_it_ends(start: Start, tmp_path: Path) -> None:
    trainer = start("train")
    assert said(trainer) == "training"
    lock = HostLock(tmp_path / "locks")
    with lock.measuring(30) as alone:
        assert alone
        late = start("train")
        with (tmp_path / "locks" / "host.lock").open() as host:
            # Alone for real: nobody else may even share.
            assert not hostlock._take(host.fileno(), hostlock.fcntl.LOCK_SH, 1.0)
        assert not select.select([late.stdout], [], [], 0)[0], "the late trainer is silent"
    assert said(late) == "training"
    (tmp_path / "stop").touch()
    assert (trainer.wait(30), late.wait(30)) == (0, 0)


def test_two_measurers_take_turns(start: Start, tmp_path: Path) -> None:
    first = start("measure")
    assert said(first) == "alone"
    with HostLock(tmp_path / "locks").measuring(0.2) as alone:
        assert not alone
    (tmp_path / "stop").touch()
    first.wait(30)
    with HostLock(tmp_path / "locks").measuring(10) as alone:
        assert alone


@pytest.mark.parametrize("what", ["train", "measure"])
def test_a_killed_holder_frees_the_host(what: str, start: Start, tmp_path: Path) -> None:
    holder = start(what)
    assert said(holder) in ("training", "alone")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(30)
    with HostLock(tmp_path / "locks").measuring(5) as alone:
        assert alone


def test_a_trainer_that_does_not_breathe_costs_the_measurer_its_lock_but_not_its_life(
    start: Start, tmp_path: Path
) -> None:
    trainer = start("train")
    assert said(trainer) == "training"
    os.kill(trainer.pid, signal.SIGSTOP)
    with HostLock(tmp_path / "locks").measuring(0.3) as alone:
        assert not alone
        late = start("train")  # nobody waits at the gate for a measurer that has given up
        assert said(late) == "training"


def test_a_measurer_that_hangs_does_not_stop_training_for_ever(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = start("measure")
    assert said(measurer) == "alone"
    monkeypatch.setattr(hostlock, "TRAINER_PATIENCE_S", 0.1)
    monkeypatch.setattr(hostlock, "CHUNK_S", 0.0)
    steps = 0
    with HostLock(tmp_path / "locks").training() as breathe:
        for _ in range(3):
            breathe()
            steps += 1
    assert steps == 3


def test_breathing_lets_a_measurer_in_only_once_the_chunk_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(hostlock.time, "monotonic", lambda: now)
    released: list[int] = []
    flock = hostlock.fcntl.flock
    monkeypatch.setattr(
        hostlock.fcntl,
        "flock",
        lambda fd, op: (released.append(fd) if op == hostlock.fcntl.LOCK_UN else None, flock(fd, op)),
    )
    with HostLock(tmp_path).training() as breathe:
        released.clear()
        now += hostlock.CHUNK_S / 2
        breathe()
        assert not released
        now += hostlock.CHUNK_S
        breathe()
        assert released


def test_measuring_inside_training_is_refused_and_not_a_deadlock(tmp_path: Path) -> None:
    lock = HostLock(tmp_path)
    with lock.training(), pytest.raises(RuntimeError, match="inside training"), lock.measuring(1):
        pass
    with lock.measuring(1) as alone:
        assert alone


def test_folder_is_the_setting_or_a_private_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lock_folder({"KDSEARCH_LOCKS": "/elsewhere"}) == Path("/elsewhere")
    monkeypatch.setattr(hostlock.tempfile, "tempdir", str(tmp_path))
    folder = lock_folder({})
    assert folder == lock_folder({})
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlock.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / f"kdsearch-locks-{os.getuid()}").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match="somebody else"):
        lock_folder({})


class AskedToStopError(Exception):
    """What the one who waits is told."""


def stop() -> None:
    raise AskedToStopError


def test_whoever_waits_can_be_called_away(tmp_path: Path) -> None:
    waiting = HostLock(tmp_path, interrupt=stop)
    with HostLock(tmp_path).measuring(1) as alone:
        assert alone
        with pytest.raises(AskedToStopError), waiting.training():
            pass
        with pytest.raises(AskedToStopError), waiting.measuring(60):
            pass
    with HostLock(tmp_path).measuring(0) as alone:
        assert alone, "whoever was called away holds nothing"


def test_training_settles_before_it_lets_a_measurer_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostlock, "CHUNK_S", 0.0)
    alone_meanwhile: list[bool] = []

    def settle() -> None:
        with HostLock(tmp_path).measuring(0) as alone:
            alone_meanwhile.append(alone)

    with HostLock(tmp_path, settle=settle).training() as breathe:
        breathe()
    assert alone_meanwhile == [False, False], "once at the breath, once at the end"
