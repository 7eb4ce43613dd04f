"""Stored bytes named by their SHA-256: the Protocol that training uses and `store` implements."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from kdsearch.core.canonical import canonical_json


class Blobs(Protocol):
    """Content-addressed bytes. Whatever `open` returns has been checked against its hash.

    Every method raises ArtifactError when the store cannot be reached or the bytes are damaged.
    """

    def put(self, data: bytes | Path) -> str:
        """Store bytes, or a file's bytes, and return their SHA-256; storing twice is free."""
        ...

    def open(self, sha256: str) -> Path:
        """A local read-only file with these bytes (fetched once, then cached)."""
        ...

    def exists(self, sha256: str) -> bool:
        """Whether the store has these bytes."""
        ...

    def remove(self, sha256: str) -> None:
        """Forget these bytes (nothing happens if they are not there): superseded checkpoints."""
        ...


def put_tree(blobs: Blobs, folder: Path, *, only: Collection[str] | None = None) -> str:
    """Store every file below a folder; the returned SHA-256 names the list of them.

    With ``only``, just the files of these names, directly in the folder, and sharded weights.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    shard = re.compile(r"model-\d+-of-\d+\.safetensors")
    kept = {n: p for n, p in names.items() if only is None or n in only or shard.fullmatch(n)}
    listing = {name: blobs.put(path) for name, path in kept.items()}
    return blobs.put(canonical_json({"tree": listing}).encode())


def has_tree(blobs: Blobs, sha256: str) -> bool:
    """Whether the store has a stored folder, every file of it."""
    if not blobs.exists(sha256):
        return False
    listing: dict[str, str] = json.loads(blobs.open(sha256).read_text())["tree"]
    return all(blobs.exists(digest) for digest in listing.values())


def get_tree(blobs: Blobs, sha256: str, into: Path) -> Path:
    """Lay a stored folder out below ``into`` (created, may exist) and return it."""
    listing: dict[str, str] = json.loads(blobs.open(sha256).read_text())["tree"]
    for name, digest in listing.items():
        target = into / name
        if not target.resolve().is_relative_to(into.resolve()):
            raise ValueError(f"tree {sha256[:12]} holds a file outside its folder: {name!r}")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".part")
            shutil.copyfile(blobs.open(digest), partial)
            partial.replace(target)
    return into
