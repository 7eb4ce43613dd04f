"""Journals: what was finished, one JSON line each, on the disk before the next thing begins.

A journal has one writer at a time. Whoever is killed while writing leaves half a line, which nobody reads.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kdsearch.core.canonical import canonical_json
from kdsearch.core.errors import ConflictError

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Journal:
    """Open for writing."""

    file: BinaryIO

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Journal]:
        """Raises ConflictError while another process writes it."""
        with path.open("ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(
                    f"another process writes {path}", hint="wait for it, or stop it and start again"
                ) from None
            yield cls(file)

    def add(self, record: Record) -> None:
        """Write a line and wait until it is on the disk."""
        end = self.file.seek(0, os.SEEK_END)
        if end:
            self.file.seek(end - 1)
            if self.file.read(1) != b"\n":  # half a line of somebody killed
                self.file.write(b"\n")
        self.file.write(canonical_json(record).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())


def records(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """All that the journals of a folder hold, file by file."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_bytes().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue
