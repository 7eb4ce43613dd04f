"""What was computed once and may be used again: which artifacts answer a kind of question and a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable


@dataclass(frozen=True)
class CacheEntry:
    """One answer: the artifact (or another digest) and what is said about it."""

    sha256: str
    meta: Mapping[str, Any]


@repeatable
def find(engine: Engine, kind: str, key: str) -> list[CacheEntry]:
    """Every answer, oldest first."""
    with begin(engine) as connection:
        return [
            CacheEntry(row.sha256, row.meta) for row in execute(connection, "find_cached", kind=kind, key=key)
        ]


@repeatable
def add(engine: Engine, kind: str, key: str, sha256: str, meta: Mapping[str, Any]) -> None:
    """Keep an answer; one that is there stays as it is."""
    with begin(engine) as connection:
        execute(connection, "add_cached", kind=kind, key=key, sha256=sha256, meta=dict(meta))
