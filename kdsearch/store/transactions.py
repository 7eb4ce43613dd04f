"""Transactions whose errors speak: what Postgres refuses becomes a StorageError, outages are waited out.

A write that may be repeated (it carries its own guard, or is an upsert) is `repeatable`: a restarted
database or a broken connection costs it seconds, not the caller's hours of training.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import tenacity
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kdsearch.core.errors import StorageError

P = ParamSpec("P")
R = TypeVar("R")

OUTAGE_S = 90.0
"""How long a repeatable write waits for the database to come back."""
_SECRETS = re.compile(r"(://[^:/@\s]*:)\S*@|((?:ssl)?password=)('[^']*'|[^\s&]+)", re.IGNORECASE)
_PASSING = ("08", "57P", "55P03", "40001", "40P01")
"""SQLSTATE prefixes: connection lost, shutting down, lock not available, serialisation, deadlock."""
_NOT_ALLOWED = {
    "42501": "the owner lets workers write and the dashboard read: kdsearch db upgrade --roles",
    "25006": "this role, or this server, is only read from: connect as a worker's role, to the primary",
}
"""By SQLSTATE: no privilege, a transaction that may only read."""


class UnavailableError(StorageError):
    """The database could not be reached or is busy; the same call may succeed later."""

    @property
    def code(self) -> str:
        """As every other storage error, for machines."""
        return "storage"


def without_secrets(message: str) -> str:
    """A message with passwords in URLs and connection strings blotted out."""
    return _SECRETS.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", message)


def explain(error: SQLAlchemyError, engine: Engine) -> StorageError:
    """What went wrong, where, without passwords."""
    original = getattr(error, "orig", None) or error
    said = without_secrets(" ".join(str(original).split()))
    where = without_secrets(engine.url.render_as_string(hide_password=True))
    state = getattr(original, "pgcode", None) or ""
    lost = isinstance(error, DBAPIError) and (error.connection_invalidated or not state)
    if lost or state.startswith(_PASSING):
        return UnavailableError(
            f"Postgres at {where} is not available: {said}", hint="kdsearch doctor shows what is reachable"
        )
    hint = _NOT_ALLOWED.get(state, "")
    return StorageError(f"Postgres at {where} refused: {said}", hint=hint)


@contextmanager
def begin(engine: Engine) -> Iterator[Connection]:
    """A transaction: committed on leaving, rolled back on an error."""
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise explain(error, engine) from error


def repeatable(function: Callable[P, R]) -> Callable[P, R]:
    """Repeat a write while the database is away; the last error is raised when it stays away."""

    @functools.wraps(function)
    def patient(*args: P.args, **kwargs: P.kwargs) -> R:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5.0),
            stop=tenacity.stop_after_delay(OUTAGE_S),
            reraise=True,
        )
        return retrying(function, *args, **kwargs)

    return patient
