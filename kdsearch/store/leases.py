"""Leases: who runs what, decided by Postgres and its clock.

A lease is a trial's row in state `running` with a worker, a time at which it expires and an
`attempt`. The attempt is a fencing token: it is in the WHERE of every write, so what a worker that
lost its lease still sends changes nothing (LeaseLostError). A lease is lost when somebody else takes
the trial or its holder lets it go, not when it merely ran out: what comes late is welcome till then.
A trial of a dead worker goes on under its own number from its last checkpoint; one that took several
workers with it has failed. A repeat trains a trial again with another seed; its lease is like any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Engine

from kdsearch.core.errors import LeaseLostError
from kdsearch.core.records import (
    Decision,
    EpochReport,
    Failure,
    Latency,
    TrialConfig,
    TrialResult,
    TrialState,
)
from kdsearch.store import reads
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable

LEASE_TTL_S = 60.0
MAX_DEATHS = 3
"""A trial or preparation in which so many workers have died is not tried again."""
Ended: TypeAlias = Literal[
    "finished", "given back", "paused", "lost", "hang", "crash", "out_of_memory", "exception"
]
"""How an attempt ended; ``lost`` is what a sweep takes for death."""
Death: TypeAlias = Literal["hang", "crash"]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to run one trial, until it expires or is taken over."""

    study_id: int
    number: int
    repeat: int = 0
    """0 is the trial itself, k its k-th training with a further seed."""
    optuna_trial_id: int | None
    """None for a repeat, of which Optuna knows nothing."""
    attempt: int
    worker_id: str
    config: TrialConfig
    """A repeat's has the repeat's seed."""
    accumulate: int = 1
    """Parts in which a batch goes through memory."""
    checkpoint: str | None = None
    """SHA-256 of the state to go on from."""
    previous_checkpoint: str | None = None
    """The one before, should the newest be damaged."""
    latency: Latency | None = None
    """Known already if an earlier attempt measured it."""
    origin: str = ""
    """Who chose the trial."""

    @property
    def fence(self) -> dict[str, Any]:
        """What every write of this lease is conditional on."""
        names = ("study_id", "number", "repeat", "attempt", "worker_id")
        return {name: getattr(self, name) for name in names}


# ---------------------------------------------------------------- inside a study's turn


@contextmanager
def study_turn(engine: Engine, study_id: int) -> Iterator[Connection]:
    """One transaction at a time per study: in it, counting and handing out are exact."""
    with begin(engine) as connection:
        execute(connection, "study_turn_patience")
        execute(connection, "study_turn", study_id=study_id)
        yield connection


def sweep(connection: Connection, study_id: int | None) -> int:
    """Take the trials of dead workers back, of every study if None: they wait again, or have failed.

    How many there were. Needs no turn; any number of sessions may sweep at once.
    """
    return int(execute(connection, "sweep", study_id=study_id, max_deaths=MAX_DEATHS).scalar_one())


def take_waiting(
    connection: Connection, study_id: int, worker_id: str, ttl_s: float, *, can_measure: bool
) -> Lease | None:
    """A waiting trial: trials before repeats, low numbers first, nothing of a paused study.

    Without `can_measure` only one whose latency is known.
    """
    whose = {"study_id": study_id, "worker_id": worker_id}
    taken = execute(connection, "take_waiting", **whose, ttl_s=ttl_s, can_measure=can_measure)
    if (row := taken.mappings().one_or_none()) is None:
        return None
    values = {"config": TrialConfig.from_json(row["config"]), "latency": reads.latency_of(row["latency"])}
    return Lease(**{**row, **values})


def count_trials(connection: Connection, study_id: int) -> int:
    """How many trial numbers are given out."""
    return int(execute(connection, "count_trials", study_id=study_id).scalar_one())


def known_numbers(connection: Connection, study_id: int) -> set[int]:
    """Every trial number given out."""
    return {*execute(connection, "known_numbers", study_id=study_id).scalars()}


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
    made = _described(number, optuna_trial_id, config, architecture_key, origin)
    execute(connection, "insert_running", study_id=study_id, **made, worker_id=worker_id, ttl_s=ttl_s)
    return Lease(
        study_id=study_id,
        number=number,
        optuna_trial_id=optuna_trial_id,
        attempt=1,
        worker_id=worker_id,
        config=config,
        origin=origin,
    )


def insert_ready(
    connection: Connection,
    study_id: int,
    *,
    number: int,
    optuna_trial_id: int,
    config: TrialConfig,
    architecture_key: str,
    origin: str = "",
) -> None:
    """A new trial that waits for whoever comes first."""
    made = _described(number, optuna_trial_id, config, architecture_key, origin)
    execute(connection, "insert_ready", study_id=study_id, **made)


def _described(
    number: int, optuna_trial_id: int, config: TrialConfig, architecture_key: str, origin: str
) -> dict[str, Any]:
    return {
        "number": number,
        "optuna_trial_id": optuna_trial_id,
        "config": config.to_json(),
        "config_key": config.key,
        "architecture_key": architecture_key,
        "student": config.student,
        "scheme": config.scheme,
        "origin": origin,
    }


def insert_repeats(connection: Connection, study_id: int, wanted: Sequence[tuple[int, int]]) -> int:
    """Have complete trials trained again: (number, seed) each; how many of them are new.

    A seed that a trial was trained with already is left out, so that it may be asked for again.
    """
    num_new = 0
    for number, seed in wanted:
        of = {"study_id": study_id, "number": number}
        stored = execute(connection, "config_of", **of).scalar_one_or_none()
        if stored is not None:
            config = replace(TrialConfig.from_json(stored), seed=seed)
            made = {"config": config.to_json(), "config_key": config.key}
            num_new += execute(connection, "insert_repeat", **of, **made).rowcount
    return num_new


def promote(connection: Connection, study_id: int, number: int, decision: Decision) -> bool:
    """Let a paused trial wait for a worker; False if it is not paused (any more)."""
    if execute(connection, "promote", study_id=study_id, number=number).rowcount == 0:
        return False
    decide(connection, study_id, number, decision)
    return True


def decide(connection: Connection, study_id: int, number: int, decision: Decision, repeat: int = 0) -> None:
    """Keep a decision about a trial that the one who decides does not hold."""
    values = {**asdict(decision), "inputs": dict(decision.inputs)}
    execute(connection, "insert_decision", study_id=study_id, number=number, repeat=repeat, **values)


def close_study(connection: Connection, study_id: int) -> list[int]:
    """Stop what is paused, for the study ends; the numbers of those trials."""
    return list(execute(connection, "close_study", study_id=study_id).scalars())


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
        execute(connection, "reopen_attempt", **lease.fence)


@repeatable
def give_back(engine: Engine, lease: Lease) -> None:
    """Let another worker go on with the trial; does not count as a death."""
    with begin(engine) as connection:
        _let_go(connection, "give_back", lease, "given back")


@repeatable
def pause(engine: Engine, lease: Lease, decision: Decision) -> None:
    """Lay the trial aside with its checkpoint, until it is promoted or the study ends."""
    with begin(engine) as connection:
        if _let_go(connection, "pause", lease, "paused"):
            decide(connection, lease.study_id, lease.number, decision)


@repeatable
def retry_smaller(
    engine: Engine, lease: Lease, decision: Decision, *, accumulate: int, traceback: str
) -> None:
    """Out of memory: let it be tried with batches in `accumulate` parts; neither death nor failure."""
    with begin(engine) as connection:
        retried = _let_go(
            connection, "retry_smaller", lease, "out_of_memory", traceback, accumulate=accumulate
        )
        if retried:
            decide(connection, lease.study_id, lease.number, decision, lease.repeat)


def _let_go(
    connection: Connection, query: str, lease: Lease, ended: Ended, traceback: str = "", **values: Any
) -> bool:
    """End an attempt; False if it had ended so already: the answer to the first time may have been lost."""
    if execute(connection, query, **lease.fence, **values).rowcount == 0:
        if execute(connection, "has_ended_so", **lease.fence, ended=ended).scalar_one():
            return False
        raise _lost(lease)
    execute(connection, "end_attempt", **lease.fence, ended=ended, traceback=traceback)
    return True


@repeatable
def fail_attempt(engine: Engine, lease: Lease, kind: Death, traceback: str) -> None:
    """The attempt is over and counts as a death: the trial waits again, or has failed."""
    with begin(engine) as connection:
        found = execute(connection, "running_id", **lease.fence).scalar_one_or_none()
        if found is not None:
            death = {"how": kind, "trace": traceback, "max_deaths": MAX_DEATHS}
            execute(connection, "count_death", id=found, **death)
        elif not execute(connection, "has_ended_so", **lease.fence, ended=kind).scalar_one():
            if execute(connection, "explain_death", **lease.fence, traceback=traceback).rowcount == 0:
                raise _lost(lease)
            execute(connection, "end_attempt", **lease.fence, ended=kind, traceback=traceback)


@repeatable
def fail_attempts_of(engine: Engine, worker_id: str, ended: Death, traceback: str) -> int:
    """A worker is known to be dead: what it still holds is free at once; how many trials that were."""
    with begin(engine) as connection:
        execute(connection, "bury_preparation", worker_id=worker_id)
        death = {"how": ended, "trace": traceback, "max_deaths": MAX_DEATHS}
        return int(execute(connection, "bury", worker_id=worker_id, **death).scalar_one())


@repeatable
def record_latency(engine: Engine, lease: Lease, latency: Latency) -> None:
    """Keep the latency, measured before training."""
    with begin(engine) as connection:
        _guarded(connection, "record_latency", lease, latency=latency.to_json())


@repeatable
def record_decision(engine: Engine, lease: Lease, decision: Decision) -> None:
    """Keep a decision that leaves the trial as it is."""
    with begin(engine) as connection:
        if not execute(connection, "hold", **lease.fence).scalar_one():
            raise _lost(lease)
        decide(connection, lease.study_id, lease.number, decision, lease.repeat)


@repeatable
def record_checkpoint(
    engine: Engine, lease: Lease, checkpoint_sha: str, *, epochs_run: int, previous: str | None = None
) -> None:
    """A checkpoint within an epoch; `previous`, or what was the newest, may have to stand in for it."""
    kept = {"checkpoint": checkpoint_sha, "previous": previous, "epochs_run": epochs_run}
    with begin(engine) as connection:
        _guarded(connection, "record_checkpoint", lease, **kept)


@repeatable
def record_epoch(
    engine: Engine, lease: Lease, report: EpochReport, checkpoint_sha: str, previous: str | None = None
) -> None:
    """An epoch and the checkpoint after it, both or neither."""
    scores = report.scores
    values = {
        "epoch": report.epoch,
        "stage": report.stage,
        "rows_seen": report.rows_seen,
        "losses": dict(report.losses),
        "scores": asdict(scores) if scores else None,
        "quality": scores.quality if scores else None,
        "seconds": report.seconds,
    }
    kept = {"checkpoint": checkpoint_sha, "previous": previous, "epochs_run": report.epoch}
    which = {"study_id": lease.study_id, "number": lease.number, "repeat": lease.repeat}
    with begin(engine) as connection:
        _guarded(connection, "record_checkpoint", lease, **kept)
        execute(connection, "record_epoch", **which, **values)


def finish_complete(
    engine: Engine,
    lease: Lease,
    result: TrialResult,
    constraints: Mapping[str, float],
    decision: Decision | None = None,
) -> None:
    """The trial is done; its constraints are met where they are at most 0."""
    values = asdict(result)
    scores = values.pop("scores")
    _finish(
        engine,
        lease,
        "complete",
        decision,
        result=values,
        scores=scores,
        quality=result.scores.quality,
        constraints=dict(constraints),
    )


def finish_rejected(
    engine: Engine, lease: Lease, constraints: Mapping[str, float], decision: Decision | None = None
) -> None:
    """The trial cannot be what is asked for; it was not trained."""
    _finish(engine, lease, "rejected", decision, constraints=dict(constraints))


def finish_failed(engine: Engine, lease: Lease, failure: Failure, decision: Decision | None = None) -> None:
    """The trial ended with an error."""
    _finish(engine, lease, "failed", decision, failure=asdict(failure))


@repeatable
def _finish(
    engine: Engine, lease: Lease, state: TrialState, decision: Decision | None, **values: Any
) -> None:
    """Once; the same again is accepted, since the answer to the first time may have been lost."""
    columns = ("result", "scores", "constraints", "failure")
    said = {name: values.get(name) for name in columns}
    result, failure = values.get("result") or {}, values.get("failure") or {}
    more = {"quality": values.get("quality"), "epochs_run": result.get("epochs_run", 0)}
    with begin(engine) as connection:
        done = execute(connection, "finish", **lease.fence, state=state, **said, **more)
        if done.rowcount == 0:
            if execute(connection, "is_finished_so", **lease.fence, state=state, **said).scalar_one():
                return
            raise _lost(lease)
        kind = failure.get("kind", "finished")
        ended = "exception" if kind == "attempts" else kind
        traceback = failure.get("traceback", "")
        execute(connection, "end_attempt", **lease.fence, ended=ended, traceback=traceback)
        if decision is not None:
            decide(connection, lease.study_id, lease.number, decision, lease.repeat)
