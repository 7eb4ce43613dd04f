"""What is left behind: checkpoints of trials that ended early, artifacts of a study that is deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import Engine

from kdsearch.core.errors import ArtifactError
from kdsearch.store.artifacts import ArtifactStore
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable

LONGEST_LIST = 1 << 24
"""Bytes of an artifact that may name others: lists of files and manifests, which are JSON."""
_DIGEST = re.compile(rb"[0-9a-f]{64}")


@repeatable
def left_checkpoints(engine: Engine, study_id: int) -> list[str]:
    """SHA-256 of each that is on record."""
    with begin(engine) as connection:
        return list(execute(connection, "left_checkpoints", study_id=study_id).scalars())


@repeatable
def forget_checkpoints(engine: Engine, study_id: int) -> None:
    """They are removed."""
    with begin(engine) as connection:
        execute(connection, "forget_checkpoints", study_id=study_id)


def reachable(engine: Engine, blobs: ArtifactStore, digests: Iterable[str]) -> dict[str, int]:
    """Size of every artifact that is named, or that one of these names; other digests are left out.

    What is missing or damaged names nothing. ArtifactError if the store cannot be reached.
    """
    found: dict[str, int] = {}
    asked = set(digests)
    while asked:
        with begin(engine) as connection:
            rows = execute(connection, "known_artifacts", digests=sorted(asked)).all()
        new = {row.sha256: row.bytes for row in rows if row.sha256 not in found}
        found |= new
        asked = {
            name for sha256, size in new.items() if size <= LONGEST_LIST for name in _named(blobs, sha256)
        }
        asked -= found.keys()
    return found


def _named(blobs: ArtifactStore, sha256: str) -> set[str]:
    """What an artifact names, if it is JSON."""
    try:
        path = blobs.open(sha256)
    except ArtifactError:
        blobs.exists(sha256)  # raises where it is the store that is away
        return set()
    with path.open("rb") as file:
        begins_with = file.read(1)
        return {*map(bytes.decode, _DIGEST.findall(file.read()))} if begins_with == b"{" else set()
