"""Leases: who runs what, decided by Postgres and its clock.

A lease is a trial's row in state `running` with a worker, a time at which it expires and an
`attempt`. The attempt is a fencing token: it is in the WHERE of every write, so what a worker that
lost its lease still sends changes nothing (LeaseLostError). A trial of a dead worker goes on under
its own number from its last checkpoint; one that took several workers with it has failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from kdsearch.core.errors import LeaseLostError
from kdsearch.core.records import EpochReport, Failure, Latency, TrialConfig, TrialResult, TrialState
from kdsearch.store import reads
from kdsearch.store.sql import execute, numbers
from kdsearch.store.transactions import begin, repeatable

LEASE_TTL_S = 60.0
MAX_DEATHS = 3
"""A trial or preparation in which so many workers have died is not tried again."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to run one trial, until it expires or is taken over."""

    study_id: int
    number: int
    optuna_trial_id: int
    attempt: int
    worker_id: str
    config: TrialConfig
    checkpoint: str | None = None
    """SHA-256 of the state to go on from."""
    latency: Latency | None = None
    """Known already if an earlier attempt measured it."""

    @property
    def fence(self) -> dict[str, Any]:
        """What every write of this lease is conditional on."""
        return {name: getattr(self, name) for name in ("study_id", "number", "attempt", "worker_id")}


@dataclass(frozen=True, kw_only=True)
class Untold:
    """A finished trial that Optuna has not heard of."""

    number: int
    optuna_trial_id: int
    state: TrialState
    quality: float | None
    latency: Latency | None
    constraints: Mapping[str, float]


# ---------------------------------------------------------------- inside a study's turn


@contextmanager
def study_turn(engine: Engine, study_id: int) -> Iterator[Connection]:
    """One transaction at a time per study: in it, counting and handing out are exact."""
    with begin(engine) as connection:
        execute(connection, "study_turn_patience")
        execute(connection, "study_turn", study_id=study_id)
        yield connection


def sweep(connection: Connection, study_id: int) -> int:
    """Take the trials of dead workers back: they wait again, or have failed; how many there were."""
    return execute(connection, "sweep", study_id=study_id, max_deaths=MAX_DEATHS).rowcount


def take_waiting(
    connection: Connection, study_id: int, worker_id: str, ttl_s: float, *, can_measure: bool
) -> Lease | None:
    """The waiting trial with the lowest number; without `can_measure` only one whose latency is known."""
    taken = execute(
        connection,
        "take_waiting",
        study_id=study_id,
        worker_id=worker_id,
        ttl_s=ttl_s,
        can_measure=can_measure,
    )
    row = taken.mappings().one_or_none()
    if row is None:
        return None
    values = {"config": TrialConfig.from_json(row["config"]), "latency": reads.latency_of(row["latency"])}
    return Lease(**{**row, **values})


def stop_unmeasured(connection: Connection, study_id: int) -> int:
    """End the trials that still wait for a machine that may measure; how many there were."""
    return execute(connection, "stop_unmeasured", study_id=study_id).rowcount


def count_trials(connection: Connection, study_id: int) -> int:
    """How many trial numbers are given out."""
    return int(execute(connection, "count_trials", study_id=study_id).scalar_one())


def known_numbers(connection: Connection, study_id: int) -> set[int]:
    """Every trial number given out."""
    return set(execute(connection, "known_numbers", study_id=study_id).scalars())


def insert_running(
    connection: Connection,
    study_id: int,
    *,
    number: int,
    optuna_trial_id: int,
    config: TrialConfig,
    architecture_key: str,
    worker_id: str,
    ttl_s: float,
    origin: str = "",
) -> Lease:
    """A new trial, leased to the worker that asked for it."""
    execute(
        connection,
        "insert_running",
        study_id=study_id,
        number=number,
        optuna_trial_id=optuna_trial_id,
        config=config.to_json(),
        config_key=config.key,
        architecture_key=architecture_key,
        student=config.student,
        scheme=config.scheme,
        origin=origin,
        worker_id=worker_id,
        ttl_s=ttl_s,
    )
    return Lease(
        study_id=study_id,
        number=number,
        optuna_trial_id=optuna_trial_id,
        attempt=1,
        worker_id=worker_id,
        config=config,
    )


# ---------------------------------------------------------------- what the holder writes


def _guarded(connection: Connection, query: str, lease: Lease, **values: Any) -> None:
    if execute(connection, query, **lease.fence, **values).rowcount == 0:
        raise _lost(lease)


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(
        f"Worker {lease.worker_id} no longer holds trial {lease.number} (attempt {lease.attempt})",
        hint="another worker goes on with it; nothing has to be done",
    )


@repeatable
def renew(engine: Engine, lease: Lease, ttl_s: float) -> None:
    """Push the lease's end to `ttl_s` seconds from now."""
    with begin(engine) as connection:
        _guarded(connection, "renew", lease, ttl_s=ttl_s)


@repeatable
def give_back(engine: Engine, lease: Lease) -> None:
    """Let another worker go on with the trial; does not count as a death."""
    with begin(engine) as connection:
        _guarded(connection, "give_back", lease)


@repeatable
def record_latency(engine: Engine, lease: Lease, latency: Latency) -> None:
    """Keep the latency, measured before training."""
    with begin(engine) as connection:
        _guarded(connection, "record_latency", lease, latency=latency.to_json())


@repeatable
def record_epoch(engine: Engine, lease: Lease, report: EpochReport, checkpoint_sha: str) -> None:
    """An epoch and the checkpoint after it, both or neither."""
    scores = report.scores
    with begin(engine) as connection:
        _guarded(connection, "record_checkpoint", lease, checkpoint=checkpoint_sha)
        execute(
            connection,
            "record_epoch",
            study_id=lease.study_id,
            number=lease.number,
            epoch=report.epoch,
            stage=report.stage,
            rows_seen=report.rows_seen,
            losses=dict(report.losses),
            scores=asdict(scores) if scores else None,
            quality=scores.quality if scores else None,
            seconds=report.seconds,
        )


def finish_complete(
    engine: Engine, lease: Lease, result: TrialResult, constraints: Mapping[str, float]
) -> None:
    """The trial is done; its constraints are met where they are at most 0."""
    values = asdict(result)
    scores = values.pop("scores")
    _finish(
        engine,
        lease,
        "complete",
        result=values,
        scores=scores,
        quality=result.scores.quality,
        constraints=dict(constraints),
    )


def finish_rejected(engine: Engine, lease: Lease, constraints: Mapping[str, float]) -> None:
    """The trial cannot be what is asked for; it was not trained."""
    _finish(engine, lease, "rejected", constraints=dict(constraints))


def finish_failed(engine: Engine, lease: Lease, failure: Failure) -> None:
    """The trial ended with an error."""
    _finish(engine, lease, "failed", failure=asdict(failure))


@repeatable
def _finish(
    engine: Engine,
    lease: Lease,
    state: TrialState,
    *,
    result: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    quality: float | None = None,
    constraints: Mapping[str, float] | None = None,
    failure: Mapping[str, Any] | None = None,
) -> None:
    """Once; the same again is accepted, since the answer to the first time may have been lost."""
    values = {"result": result, "scores": scores, "constraints": constraints, "failure": failure}
    with begin(engine) as connection:
        done = execute(connection, "finish", **lease.fence, state=state, quality=quality, **values)
        if done.rowcount == 0:
            same = execute(connection, "is_finished_so", **lease.fence, state=state, **values)
            if not same.scalar_one():
                raise _lost(lease)


@repeatable
def untold(engine: Engine, study_id: int) -> list[Untold]:
    """Finished trials that Optuna has not heard of, by number."""
    with begin(engine) as connection:
        rows = execute(connection, "untold", study_id=study_id).mappings().all()
    return [
        Untold(
            **{
                **row,
                "latency": reads.latency_of(row["latency"]),
                "constraints": numbers(row["constraints"] or {}),
            }
        )
        for row in rows
    ]


@repeatable
def mark_told(engine: Engine, study_id: int, number: int) -> None:
    """Optuna has heard of this trial."""
    with begin(engine) as connection:
        execute(connection, "mark_told", study_id=study_id, number=number)


# ---------------------------------------------------------------- the preparation's lease


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


def _write_preparation(connection: Connection, query: str, lease: PreparationLease, **values: Any) -> None:
    if execute(connection, query, **lease.fence, **values).rowcount == 0:
        raise LeaseLostError(
            f"Worker {lease.worker_id} no longer prepares this study (attempt {lease.attempt})",
            hint="another worker goes on with it; nothing has to be done",
        )


@repeatable
def renew_preparation(engine: Engine, lease: PreparationLease, ttl_s: float) -> None:
    """Push the lease's end to `ttl_s` seconds from now."""
    with begin(engine) as connection:
        _write_preparation(connection, "renew_preparation", lease, ttl_s=ttl_s)


@repeatable
def preparation_progress(
    engine: Engine, lease: PreparationLease, text: str, checkpoint: str | None = None
) -> None:
    """Say how far it is, and name the state to go on from (None keeps the last one)."""
    with begin(engine) as connection:
        _write_preparation(connection, "preparation_progress", lease, progress=text, checkpoint=checkpoint)


@repeatable
def finish_preparation(engine: Engine, lease: PreparationLease, prepared_sha: str) -> None:
    """The study is prepared: its manifest is there."""
    with begin(engine) as connection:
        _write_preparation(connection, "finish_preparation", lease)
        execute(connection, "set_prepared", study_id=lease.study_id, prepared=prepared_sha)


@repeatable
def fail_preparation(engine: Engine, lease: PreparationLease, error: str) -> None:
    """The study cannot be prepared."""
    with begin(engine) as connection:
        _write_preparation(connection, "fail_preparation", lease, error=error)
        execute(connection, "set_study_state", study_id=lease.study_id, state="failed", error=error)


@repeatable
def give_back_preparation(engine: Engine, lease: PreparationLease) -> None:
    """Let another worker go on; does not count as a death."""
    with begin(engine) as connection:
        _write_preparation(connection, "give_back_preparation", lease)


@repeatable
def preparation(engine: Engine, study_id: int) -> reads.PreparationRow:
    """How far the preparation is."""
    return reads.preparation(engine, study_id)
