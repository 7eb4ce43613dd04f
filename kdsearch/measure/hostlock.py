"""HostLock: while somebody measures latency on this host, nobody trains.

Two files, two `flock`s. Training holds `host` shared for a chunk of steps; measuring holds it alone. Shared
holders that come and go would starve an exclusive waiter, so a measurer first takes `gate`, which every
trainer passes on its way to `host`: from then on trainers only leave. The kernel frees both when a process
dies.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kdsearch.core.errors import UsageError

CHUNK_S = 0.5
"""Training lets a measurer in at least this often."""
POLL_S = 0.005
TRAINER_PATIENCE_S = 600.0
"""A measurer that holds the lock for longer is taken to hang; training goes on without the lock."""


def lock_folder(env: Mapping[str, str]) -> Path:
    """`KDSEARCH_LOCKS`, else a folder of this user below the system's temporary one (created, private).

    Users who share a host set `KDSEARCH_LOCKS` to one folder that all of them can read and write.
    """
    if env.get("KDSEARCH_LOCKS"):
        return Path(env["KDSEARCH_LOCKS"])
    folder = Path(tempfile.gettempdir()) / f"kdsearch-locks-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UsageError(
            f"{folder} belongs to somebody else, so it cannot hold this user's locks",
            hint="Set KDSEARCH_LOCKS to a folder of your own.",
        )
    return folder


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor that can be locked; reading is enough for that, so another user's file will do."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _nothing() -> None:
    """Nobody has to be asked."""


def _take(
    descriptor: int, operation: int, timeout_s: float, interrupt: Callable[[], None] = _nothing
) -> bool:
    """Lock within the time; polling, because a blocking flock knows no timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            interrupt()
            time.sleep(POLL_S)
        else:
            return True


class HostLock:
    """The lock of one folder; processes with the same folder exclude each other.

    ``interrupt`` is asked while somebody waits or measures, and raises to end it. ``settle`` is called
    before training lets a measurer in: what was handed to a device must be done by then.
    """

    def __init__(
        self, folder: Path, *, interrupt: Callable[[], None] = _nothing, settle: Callable[[], None] = _nothing
    ) -> None:
        self.folder = folder
        self.interrupt = interrupt
        self._settle = settle
        self._training = 0

    def _take(self, descriptor: int, operation: int, timeout_s: float) -> bool:
        return _take(descriptor, operation, timeout_s, self.interrupt)

    @contextmanager
    def _files(self) -> Iterator[tuple[int, int]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with _opened(self.folder / "gate.lock") as gate, _opened(self.folder / "host.lock") as host:
            yield gate, host

    @contextmanager
    def training(self) -> Iterator[Callable[[], None]]:
        """Hold the host shared; call what this yields at every step, and it lets measurers in."""
        with self._files() as (gate, host):
            entered = 0.0

            def enter() -> float:
                if self._take(gate, fcntl.LOCK_SH, TRAINER_PATIENCE_S):
                    self._take(host, fcntl.LOCK_SH, TRAINER_PATIENCE_S)
                    fcntl.flock(gate, fcntl.LOCK_UN)
                return time.monotonic()

            def breathe() -> None:
                nonlocal entered
                if time.monotonic() - entered >= CHUNK_S:
                    self._settle()
                    fcntl.flock(host, fcntl.LOCK_UN)
                    entered = enter()

            entered = enter()
            self._training += 1
            try:
                yield breathe
                self._settle()
            finally:
                self._training -= 1

    @contextmanager
    def measuring(self, timeout_s: float) -> Iterator[bool]:
        """Hold the host alone; yields False if it could not be had in time, and then others may train."""
        if self._training:
            raise RuntimeError("measuring inside training would wait for itself")
        with self._files() as (gate, host):
            deadline = time.monotonic() + timeout_s
            alone = self._take(gate, fcntl.LOCK_EX, timeout_s)
            alone = alone and self._take(host, fcntl.LOCK_EX, deadline - time.monotonic())
            if not alone:
                fcntl.flock(gate, fcntl.LOCK_UN)
            yield alone
