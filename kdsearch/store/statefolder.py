"""The state folder of an embedded Postgres: its files, and the locks that say who uses it.

Three lock files, all `flock`, so that the kernel frees them on SIGKILL: ``gate`` (held while starting
or stopping), ``clients`` (shared by everyone who uses the server), ``server`` (inherited by the
server's own processes: free if and only if none of them is left, on whatever machine or in whatever
container they run).
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdsearch.core.errors import StorageError

PATIENCE_S = 120.0
"""How long starting (crash recovery included) or waiting for another starter may take."""


def resolve_home(env: Mapping[str, str]) -> Path:
    """The state folder: KDSEARCH_HOME, else ``.kdsearch`` here."""
    return Path(env.get("KDSEARCH_HOME") or ".kdsearch").expanduser().absolute()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one embedded server keeps its things; recorded in the state folder."""

    data: str
    sockets: str
    account: str | None = None


class StateFolder:
    """The state folder's names."""

    def __init__(self, home: Path) -> None:
        self.root = home.absolute() / "postgres"
        self.place = self.root / "server.json"
        self.password = self.root / "password"
        self.log = self.root / "server.log"

    def lock(self, name: str) -> Path:
        return self.root / f"{name}.lock"

    def make(self) -> None:
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"Cannot make the state folder {self.root}: {error.strerror}",
                hint="set KDSEARCH_HOME to a folder you may write, or name a server with --storage",
            ) from error
        if self.root.stat().st_uid != os.geteuid():
            raise StorageError(
                f"The embedded database in {self.root} belongs to another user",
                hint="set KDSEARCH_HOME to a folder of your own, or share a server with --storage",
            )


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a lock file, made where it is missing; closing it frees the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, how: int) -> bool:
    """Whether the lock was got, without waiting."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_until(done: Callable[[], bool], *, seconds: float) -> bool:
    """Whether something has come true within that time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def gate(folder: StateFolder) -> Iterator[None]:
    """One process at a time starts or stops the server."""
    with opened(folder.lock("gate")) as descriptor:
        if not wait_until(lambda: try_lock(descriptor, fcntl.LOCK_EX), seconds=2 * PATIENCE_S):
            raise StorageError(
                f"Another process has long been starting or stopping the database in {folder.root}",
                hint="look for a hanging kdsearch process, and at server.log in that folder",
            )
        yield


def free(folder: StateFolder, name: str) -> bool:
    """Whether nobody holds a lock. Call under the gate: asking holds it for a moment."""
    with opened(folder.lock(name)) as descriptor:
        return try_lock(descriptor, fcntl.LOCK_EX)


def write_private(path: Path, text: str) -> None:
    """Atomic, mode 0600 from the first byte."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(partial).replace(path)


def read_place(folder: StateFolder) -> Place | None:
    """Where the server of a state folder is, if it was ever started."""
    try:
        return Place(**json.loads(folder.place.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(
            f"Cannot read {folder.place}: {error}", hint="set KDSEARCH_HOME to a new folder"
        ) from error
