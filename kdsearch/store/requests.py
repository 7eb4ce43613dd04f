"""Requests: what a person asked for on a page or by a command, and a worker of the study carries out.

The dashboard's role may write nothing; it files a request through the function `kdsearch.file_request`, which
runs as the owner of the tables. A request is leased like a trial: one worker, fenced by its attempt; what a
dead worker had taken is taken again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from kdsearch.core.errors import ConflictError, LeaseLostError, NotFoundError
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, explain, repeatable

RequestKind = Literal["export", "pause", "resume", "enqueue"]
RequestState = Literal["waiting", "running", "done", "failed"]
MAX_ATTEMPTS = 3
"""A request whose workers end in the middle of it so often has failed."""
_NO_STUDY, _TOO_MANY = "P0002", "54000"


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """One request as people look at it."""

    id: int
    kind: RequestKind
    arguments: Mapping[str, Any]
    state: RequestState
    worker_id: str | None
    progress: str
    result: Mapping[str, Any] | None
    """Of an export: ``artifact`` (SHA-256 of a zip file), ``bytes`` and ``name``."""
    error: str | None
    filed_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class RequestLease:
    """The right to carry a request out."""

    id: int
    study_id: int
    attempt: int
    worker_id: str
    kind: RequestKind
    arguments: Mapping[str, Any]

    @property
    def fence(self) -> dict[str, Any]:
        """What every write of this lease is conditional on."""
        return {name: getattr(self, name) for name in ("id", "attempt", "worker_id")}


def file(engine: Engine, study: str, kind: RequestKind, arguments: Mapping[str, Any]) -> int:
    """Ask for something; the id of the request, or of the open one that asks for the same.

    Raises NotFoundError for an unknown study, ConflictError where too many requests are open.
    """
    try:
        with engine.begin() as connection:
            execute(connection, "write_this_time")
            asked = execute(connection, "file_request", study=study, kind=kind, arguments=arguments)
            return int(asked.scalar_one())
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", None)
        if code == _NO_STUDY:
            raise NotFoundError(f"There is no study {study!r}", hint="kdsearch study list") from error
        if code == _TOO_MANY:
            raise ConflictError(
                f"Study {study!r} has too many open requests", hint="start a worker, which carries them out"
            ) from error
        raise explain(error, engine) from error


@repeatable
def requests(engine: Engine, study_id: int) -> list[RequestRow]:
    """Every request of a study, newest first."""
    with begin(engine) as connection:
        rows = execute(connection, "list_requests", study_id=study_id).mappings()
        return [RequestRow(**row) for row in rows]


def take(engine: Engine, study_id: int, worker_id: str, ttl_s: float) -> RequestLease | None:
    """The oldest request that nobody living has; None where there is none."""
    with begin(engine) as connection:
        execute(connection, "fail_dead_requests", study_id=study_id, max_attempts=MAX_ATTEMPTS)
        taken = execute(connection, "take_request", study_id=study_id, worker_id=worker_id, ttl_s=ttl_s)
        row = taken.mappings().one_or_none()
    return None if row is None else RequestLease(**row)


@repeatable
def renew(engine: Engine, lease: RequestLease, ttl_s: float) -> None:
    """Push the lease's end to `ttl_s` seconds from now."""
    _write(engine, "renew_request", lease, ttl_s=ttl_s)


@repeatable
def progress(engine: Engine, lease: RequestLease, text: str) -> None:
    """Say how far it is."""
    _write(engine, "request_progress", lease, progress=text)


@repeatable
def finish(engine: Engine, lease: RequestLease, result: Mapping[str, Any]) -> None:
    """It is done; what came of it."""
    _write(engine, "finish_request", lease, result=result)


@repeatable
def fail(engine: Engine, lease: RequestLease, error: str) -> None:
    """It cannot be done; why, in a sentence for whoever asked."""
    _write(engine, "fail_request", lease, error=error)


@repeatable
def give_back(engine: Engine, lease: RequestLease) -> None:
    """Let another worker do it; does not count as an attempt."""
    _write(engine, "give_back_request", lease)


def _write(engine: Engine, query: str, lease: RequestLease, **values: Any) -> None:
    with begin(engine) as connection:
        if execute(connection, query, **lease.fence, **values).rowcount == 0:
            raise LeaseLostError(
                f"Worker {lease.worker_id} no longer carries out request {lease.id}",
                hint="another worker does it; nothing has to be done",
            )
