"""Workers as they show themselves; who runs what is decided by leases, not here."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Engine

from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable


@dataclass(frozen=True, kw_only=True)
class NewWorker:
    """What a worker says of itself when it starts."""

    id: str
    study_id: int
    host: str
    pid: int
    device: str
    profile_key: str | None = None
    """The hardware profile that it can measure."""


@repeatable
def register(engine: Engine, worker: NewWorker) -> None:
    """A worker starts."""
    with begin(engine) as connection:
        execute(connection, "register_worker", **asdict(worker))


def seen(engine: Engine, worker_id: str) -> bool:
    """A worker is alive; whether somebody asked it to leave."""
    with begin(engine) as connection:
        return bool(execute(connection, "worker_seen", id=worker_id).scalar_one_or_none())


def retire(engine: Engine, worker_id: str) -> None:
    """A worker ends in good order."""
    with begin(engine) as connection:
        execute(connection, "retire_worker", id=worker_id)
