"""The trials of a study as the search sees them, again and again: what is settled is read once.

A study of ten thousand trials is asked for at every claim and every rung, and nearly all of it never
changes. Exact by sets, not by time: a row is either one that was seen settled, or it is read. Settled is
what no statement changes any more (`history` in ``queries.sql`` says which), and was not written by the
transaction that reads it, which may still be undone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row

from kdsearch.core.records import TrialConfig, Tried
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin


class History:
    """Of one study, for one thread."""

    def __init__(self, study_id: int, latency_name: str, *, with_epochs: bool) -> None:
        self._values = {"study_id": study_id, "latency_name": latency_name, "with_epochs": with_epochs}
        self._settled: dict[int, Tried] = {}

    def read(self, where: Connection | Engine) -> list[Tried]:
        """Every trial so far, by number."""
        beyond = max(self._settled, default=-1)
        between = [number for number in range(beyond) if number not in self._settled]
        pending = "{" + ",".join(map(str, between)) + "}"
        with connected(where) as connection:
            rows = execute(connection, "history", **self._values, beyond=beyond, pending=pending).all()
        fresh = {row.number: _tried(row) for row in rows}
        found = {**self._settled, **fresh}
        self._settled.update((row.number, fresh[row.number]) for row in rows if row.settled)
        return [found[number] for number in sorted(found)]


@contextmanager
def connected(where: Connection | Engine) -> Iterator[Connection]:
    """The connection, or one of its own for an engine."""
    if isinstance(where, Connection):
        yield where
    else:
        with begin(where) as connection:
            yield connection


def _tried(row: Row[Any]) -> Tried:
    return Tried(
        number=row.number,
        config=TrialConfig.from_json(row.config),
        state=row.state,
        latency_ms=row.latency_ms,
        qualities=dict(zip(row.epochs or (), row.qualities or (), strict=True)),
        quality=row.quality,
    )
