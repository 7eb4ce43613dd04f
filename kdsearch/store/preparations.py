"""The lease on preparing a study's teacher: one holder, fenced by its attempt like a trial's."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from kdsearch.core.errors import LeaseLostError, StorageError
from kdsearch.store import reads
from kdsearch.store.leases import MAX_DEATHS
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable


@dataclass(frozen=True, kw_only=True)
class PreparationLease:
    """The right to prepare a study's teacher."""

    study_id: int
    attempt: int
    worker_id: str
    checkpoint: str | None

    @property
    def fence(self) -> dict[str, Any]:
        """What every write of this lease is conditional on."""
        return {name: getattr(self, name) for name in ("study_id", "attempt", "worker_id")}


@repeatable
def take_preparation(engine: Engine, study_id: int, worker_id: str, ttl_s: float) -> PreparationLease | None:
    """The lease, if nobody living has it and the work is neither done nor failed."""
    with begin(engine) as connection:
        execute(connection, "fail_dead_preparation", study_id=study_id, max_deaths=MAX_DEATHS)
        taken = execute(connection, "take_preparation", study_id=study_id, worker_id=worker_id, ttl_s=ttl_s)
        row = taken.mappings().one_or_none()
    return None if row is None else PreparationLease(**row)


def _write(connection: Connection, query: str, lease: PreparationLease, **values: Any) -> None:
    if execute(connection, query, **lease.fence, **values).rowcount == 0:
        raise LeaseLostError(
            f"Worker {lease.worker_id} no longer prepares this study (attempt {lease.attempt})",
            hint="another worker goes on with it; nothing has to be done",
        )


@repeatable
def renew_preparation(engine: Engine, lease: PreparationLease, ttl_s: float) -> None:
    """Push the lease's end to `ttl_s` seconds from now."""
    with begin(engine) as connection:
        _write(connection, "renew_preparation", lease, ttl_s=ttl_s)


@repeatable
def preparation_progress(
    engine: Engine, lease: PreparationLease, text: str, checkpoint: str | None = None
) -> None:
    """Say how far it is, and name the state to go on from (None keeps the last one)."""
    with begin(engine) as connection:
        _write(connection, "preparation_progress", lease, progress=text, checkpoint=checkpoint)


def mention(engine: Engine, lease: PreparationLease, text: str) -> None:
    """Say how far it is, where that costs nothing: what cannot be written now is left out."""
    with suppress(StorageError), begin(engine) as connection:
        execute(connection, "preparation_progress", **lease.fence, progress=text, checkpoint=None)


@repeatable
def finish_preparation(engine: Engine, lease: PreparationLease, prepared_sha: str) -> None:
    """The study is prepared: its manifest is there."""
    with begin(engine) as connection:
        _write(connection, "finish_preparation", lease)
        execute(connection, "set_prepared", study_id=lease.study_id, prepared=prepared_sha)


@repeatable
def fail_preparation(engine: Engine, lease: PreparationLease, error: str) -> None:
    """The study cannot be prepared."""
    with begin(engine) as connection:
        _write(connection, "fail_preparation", lease, error=error)
        execute(connection, "set_study_state", study_id=lease.study_id, state="failed", error=error)


@repeatable
def give_back_preparation(engine: Engine, lease: PreparationLease) -> None:
    """Let another worker go on; does not count as a death."""
    with begin(engine) as connection:
        _write(connection, "give_back_preparation", lease)


@repeatable
def preparation(engine: Engine, study_id: int) -> reads.PreparationRow:
    """How far the preparation is."""
    return reads.preparation(engine, study_id)
