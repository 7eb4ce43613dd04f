"""Spool: what a worker has to deliver, on its own disk until it is: it outlives outages and the worker.

A folder per worker below ``<state folder>/spool/<study>/``, locked for as long as the worker lives, so that a
later one finds out which folders nobody empties any more. Every file is complete under its name or not there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kdsearch.core.canonical import sha256_of
from kdsearch.store.studies import StudyRecord

LOCK = "owner.lock"
ADOPTION = "adoption.lock"
MOST_BYTES = 8 << 30
"""Of bytes that wait: a worker that makes more than its artifact store takes must not fill its disk."""


def spool_folder(home: Path, study: StudyRecord) -> Path:
    """Of one study: a name may be used again, and one state folder may know several databases."""
    mark = sha256_of([study.name, study.spec_sha256, study.created_at.isoformat()])[:12]
    return home / "spool" / f"{study.name}-{mark}"


class Spool:
    """One worker's folder, held by this process: letters are texts in order, blobs named by their hash."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock
        self._changing = threading.Lock()
        self._uses: Counter[str] = Counter()
        self._bytes = 0
        self._next = 1 + max((int(path.stem) for path in self._letters()), default=0)

    @classmethod
    def take(cls, folder: Path) -> Spool | None:
        """The folder (made where it is missing), unless a living worker has it. OSError if it cannot be."""
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return cls(folder, lock)

    def _letters(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"))

    def letters(self) -> Iterator[tuple[str, str]]:
        """Name and text of all there are, oldest first."""
        for path in self._letters():
            yield path.name, path.read_text()

    def write(self, text: str) -> str:
        """Keep a letter behind the others; its name."""
        name = f"{self._next:08d}.json"
        self._publish(text.encode(), self.folder / name)
        self._next += 1
        return name

    def put(self, data: bytes) -> str:
        """Keep bytes until as many `forget` them as have put them. OSError where there is no room."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.path(sha256).exists():
            if self._bytes + len(data) > MOST_BYTES:
                raise OSError(errno.ENOSPC, "too much waits to be delivered")
            self._publish(data, self.path(sha256))
            self._bytes += len(data)
        self.use(sha256)
        return sha256

    def use(self, sha256: str) -> None:
        """Keep bytes that are there for one more."""
        with self._changing:
            self._uses[sha256] += 1

    def path(self, sha256: str) -> Path:
        """Where these bytes are, if they are here."""
        return self.folder / "blobs" / sha256

    def forget(self, letter: str | None, blobs: tuple[str, ...]) -> None:
        """A letter is delivered, with the bytes that it speaks of."""
        if letter is not None:
            (self.folder / letter).unlink(missing_ok=True)
        with self._changing:
            self._uses.subtract(blobs)
            for sha256 in blobs:
                if self._uses[sha256] <= 0 and (path := self.path(sha256)).exists():
                    self._bytes = max(0, self._bytes - path.stat().st_size)
                    path.unlink()

    def _publish(self, data: bytes, target: Path) -> None:
        partial = target.with_name(f"{target.name}.part")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Let go of it; nothing remains of an empty one."""
        if not self._letters():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


class Adoption:
    """The right to deliver what workers that are gone have left of one study on this host."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ADOPTION
        self._lock: int | None = None

    def begin(self) -> bool:
        """Whether this process has it now; a disk that takes no file has nothing to be adopted either."""
        if self._lock is not None:
            return True
        try:
            lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def end(self) -> None:
        """Everything is delivered, or left to somebody else."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def abandoned(folder: Path) -> Iterator[Spool]:
    """The folders of a study whose workers are gone, taken over one by one."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(OSError):  # its owner tidies up just now
            if path.is_dir() and (path / LOCK).exists() and (spool := Spool.take(path)) is not None:
                yield spool
