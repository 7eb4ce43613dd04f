"""Artifacts: bytes named by their SHA-256, on a disk or in whatever fsspec reaches (``s3://``).

Written under a temporary name, hashed, on disk, then published under the hash in one step, then
recorded in the database: a crash leaves a stray temporary file, never half an artifact. Whatever is
read back has been checked against its name.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import fsspec
from sqlalchemy import Engine

from kdsearch.core.errors import ArtifactError, KdsearchError
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable, without_secrets

_CHUNK = 1 << 20
_NAME = re.compile(r"[0-9a-f]{64}")


def normal_url(url: str) -> str:
    """A folder's path becomes an absolute ``file://`` URL; other URLs stay."""
    return url if "://" in url else Path(url).expanduser().absolute().as_uri()


def is_gone(url: str) -> bool:
    """Whether a URL is that of a local folder which is not there."""
    return url.startswith("file://") and not Path(unquote(urlsplit(url).path)).is_dir()


def _digest(source: BinaryIO, sink: BinaryIO | None = None) -> tuple[str, int]:
    """SHA-256 and length of a stream, copied into `sink` on the way."""
    digest, length = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        length += len(chunk)
        if sink is not None:
            sink.write(chunk)
    return digest.hexdigest(), length


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(file)[0]


def _publish(partial: Path, target: Path) -> None:
    """Give a complete file its name, durably."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _partial_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file beside its later place, synced on leaving, removed if it was not published."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix="partial-")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fchmod(file.fileno(), 0o444)
    os.fsync(file.fileno())


class _Folder:
    """Artifacts in a local folder: ``ab/abcdef...``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    def add(self, source: BinaryIO, *, expected: str | None = None) -> tuple[str, int]:
        """Store a stream; with `expected`, only if that is its hash."""
        with _partial_file(self.root / "partial") as (file, partial):
            sha256, length = _digest(source, file)
            if expected is not None and sha256 != expected:
                raise ArtifactError(
                    f"Artifact {expected} is damaged: its bytes hash to {sha256[:12]}…",
                    hint="restore it from a copy, or run the trial that made it again",
                )
            _finish(file)
            target = self.path(sha256)
            if not (target.exists() and _file_digest(target) == sha256):  # a damaged one is replaced
                _publish(partial, target)
        return sha256, length


class ArtifactStore:
    """Implements core's Blobs over one URL; `cache_dir` keeps what was fetched from afar."""

    def __init__(self, url: str, cache_dir: Path, engine: Engine | None = None) -> None:
        self.url = normal_url(url)
        self._engine = engine
        self._checked: dict[str, tuple[int, int, int]] = {}
        local = self.url.startswith("file://")
        self._remote: tuple[Any, str] | None = None if local else self._reach(self.url)
        self._folder = _Folder(Path(unquote(urlsplit(self.url).path)) if local else cache_dir)

    def put(self, data: bytes | Path) -> str:
        """Store bytes, or a file's bytes, and return their SHA-256; storing twice is free."""
        with self._explained("write"):
            sha256, length = self._add(data)
            if self._remote is not None:
                self._upload(sha256, *self._remote)
        if self._engine is not None:
            _record(self._engine, sha256, length)
        return sha256

    def open(self, sha256: str) -> Path:
        """A local read-only file with these bytes, checked; ArtifactError if missing or damaged."""
        path = self._folder.path(_named(sha256))
        with self._explained("read"):
            if self._remote is not None and not (path.exists() and self._is_intact(sha256, path)):
                path.unlink(missing_ok=True)
                self._fetch(sha256, *self._remote)
            if not path.exists():
                raise self._missing(sha256)
            if not self._is_intact(sha256, path):
                raise ArtifactError(
                    f"Artifact {sha256} is damaged: the bytes in {path} do not hash to its name",
                    hint="restore the file from a copy, or remove it and run what made it again",
                )
        return path

    def exists(self, sha256: str) -> bool:
        """Whether the store has these bytes (their hash is checked by `open`)."""
        with self._explained("read"):
            if self._remote is None:
                return self._folder.path(_named(sha256)).exists()
            fs, root = self._remote
            return bool(fs.exists(_remote_path(root, _named(sha256))))

    def remove(self, sha256: str) -> None:
        """Forget these bytes; nothing happens if they are not there."""
        with self._explained("remove from"):
            self._folder.path(_named(sha256)).unlink(missing_ok=True)
            if self._remote is not None:
                fs, root = self._remote
                if fs.exists(_remote_path(root, sha256)):
                    fs.rm_file(_remote_path(root, sha256))
        if self._engine is not None:
            _forget(self._engine, sha256)

    def _add(self, data: bytes | Path) -> tuple[str, int]:
        if isinstance(data, Path):
            with data.open("rb") as source:
                return self._folder.add(source)
        return self._folder.add(io.BytesIO(data))

    def _upload(self, sha256: str, fs: Any, root: str) -> None:
        target = _remote_path(root, sha256)
        local = self._folder.path(sha256)
        if fs.exists(target) and fs.size(target) == local.stat().st_size:
            return
        partial = f"{root}/partial/{uuid.uuid4().hex}"
        fs.makedirs(f"{root}/partial", exist_ok=True)
        fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        fs.put_file(str(local), partial)
        fs.mv(partial, target)

    def _fetch(self, sha256: str, fs: Any, root: str) -> None:
        try:
            with fs.open(_remote_path(root, sha256), "rb") as source:
                self._folder.add(source, expected=sha256)
        except FileNotFoundError:
            raise self._missing(sha256) from None

    def _is_intact(self, sha256: str, path: Path) -> bool:
        """Hash a file once per process and version of it."""
        seen = path.stat()
        version = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
        if self._checked.get(sha256) != version:
            if _file_digest(path) != sha256:
                return False
            self._checked[sha256] = version
        return True

    def _missing(self, sha256: str) -> ArtifactError:
        return ArtifactError(
            f"Artifact {sha256} is not in {without_secrets(self.url)}",
            hint="name the artifact store that the study was made with: --artifacts",
        )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except KdsearchError:
            raise
        except Exception as error:  # fsspec's drivers raise classes of their own
            said = without_secrets(f"{type(error).__name__}: {error}")
            raise ArtifactError(
                f"Cannot {what} artifacts in {without_secrets(self.url)}: {said}",
                hint="check that the store is reachable and writable from here",
            ) from error

    def _reach(self, url: str) -> tuple[Any, str]:
        with self._explained("reach"):
            try:
                fs, root = fsspec.core.url_to_fs(url)
            except ImportError as error:
                scheme = url.split("://")[0]
                raise ArtifactError(
                    f"No driver for {scheme}:// artifacts: {error}",
                    hint="install it beside kdsearch, or keep artifacts in a folder: file:///FOLDER",
                ) from error
            return fs, str(root).rstrip("/")


def _named(sha256: str) -> str:
    if not _NAME.fullmatch(sha256):
        raise ArtifactError(f"{sha256!r} is not the name of an artifact", hint="64 hexadecimal digits")
    return sha256


def _remote_path(root: str, sha256: str) -> str:
    return f"{root}/{sha256[:2]}/{sha256}"


@repeatable
def _record(engine: Engine, sha256: str, length: int) -> None:
    with begin(engine) as connection:
        execute(connection, "record_artifact", sha256=sha256, bytes=length)


@repeatable
def _forget(engine: Engine, sha256: str) -> None:
    with begin(engine) as connection:
        execute(connection, "forget_artifact", sha256=sha256)
