"""Studies: created once under a name, found again, their budget, their state."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Engine

from kdsearch.core.errors import ConflictError, NotFoundError
from kdsearch.core.records import Confusion, Latency, Scores
from kdsearch.core.spec import BudgetSpec
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable

StudyState: TypeAlias = Literal["open", "paused", "done", "failed"]
"""Of a paused study nothing new is handed out."""


@dataclass(frozen=True, kw_only=True)
class NewStudy:
    """What a study is made of."""

    name: str
    optuna_name: str
    spec_text: str
    """The file as its author wrote it."""
    spec_json: Mapping[str, Any]
    spec_sha256: str
    dataset_sha256: str
    data_fingerprint: str
    artifacts_url: str
    budget: BudgetSpec


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study as workers need it."""

    id: int
    name: str
    optuna_name: str
    spec_text: str
    spec_json: Mapping[str, Any]
    spec_sha256: str
    dataset_sha256: str
    data_fingerprint: str
    artifacts_url: str
    state: StudyState
    error: str | None
    prepared: str | None
    """SHA-256 of the prepared manifest, once the teacher's signals are there."""
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class BudgetState:
    """How much of a study's budget is spent."""

    num_trials: int
    """Every trial number counts, finished or not; repeats do not."""
    max_trials: int
    num_failed: int
    max_failed: int
    num_open: int
    """Waiting or running."""
    num_open_repeats: int
    num_paused: int
    epochs_reserved: int
    """As run where a trial has ended or is paused, the whole configuration where it is open."""
    max_epochs: int | None
    out_of_time: bool
    """The hours or the GPU hours are spent."""


def create_study(engine: Engine, new: NewStudy) -> StudyRecord:
    """Record a study and its preparation, waiting; ConflictError if the name is taken."""
    values = {name: getattr(new, name) for name in new.__dataclass_fields__ if name != "budget"}
    budget = {f"budget_{name}": value for name, value in new.budget.model_dump().items()}
    with begin(engine) as connection:
        study_id = execute(connection, "insert_study", **values, **budget).scalar()
        if study_id is None:
            raise ConflictError(
                f"There is a study named {new.name!r} already",
                hint=f"kdsearch study show {new.name}, or give the new one another name",
            )
        execute(connection, "insert_preparation", study_id=study_id)
    return find_study(engine, new.name)


def find_study(engine: Engine, name: str) -> StudyRecord:
    """The study of that name; NotFoundError names those that are spelled alike."""
    with begin(engine) as connection:
        row = execute(connection, "study_record", name=name).mappings().one_or_none()
        if row is None:
            raise not_found(connection, name)
    return StudyRecord(**row)


def not_found(connection: Connection, name: str) -> NotFoundError:
    """The error for an unknown study."""
    names = list(execute(connection, "study_names").scalars())
    alike = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(alike)}?" if alike else "kdsearch study list shows those there are"
    return NotFoundError(f"There is no study named {name!r}", hint=meant)


def set_state(connection: Connection, study_id: int, state: StudyState, *, error: str | None = None) -> None:
    """Mark a study open, done or failed."""
    execute(connection, "set_study_state", study_id=study_id, state=state, error=error)


@repeatable
def set_prepared(engine: Engine, study_id: int, sha256: str) -> None:
    """Name the prepared manifest."""
    with begin(engine) as connection:
        execute(connection, "set_prepared", study_id=study_id, prepared=sha256)


@repeatable
def set_validation_rows(engine: Engine, study_id: int, sha256: str) -> None:
    """Name what the dashboard shows single texts from: gzipped JSON lines in the pool's order."""
    with begin(engine) as connection:
        execute(connection, "set_validation_rows", study_id=study_id, validation_rows=sha256)


@repeatable
def set_teacher(
    engine: Engine, study_id: int, scores: Scores, latency: Latency | None, confusion: Confusion | None = None
) -> None:
    """Keep the teacher's figures, taken under the protocol of the students'."""
    timed = latency.to_json() if latency else None
    teacher = {"scores": asdict(scores), "latency": timed, "confusion": confusion}
    with begin(engine) as connection:
        execute(connection, "set_teacher", study_id=study_id, teacher=teacher)


@repeatable
def raise_budget(engine: Engine, study_id: int, budget: BudgetSpec) -> None:
    """Set the budget anew; a study that was done with the old one is open again."""
    with begin(engine) as connection:
        execute(connection, "set_budget", study_id=study_id, **budget.model_dump())


@repeatable
def reopen(engine: Engine, study_id: int) -> None:
    """Open a study again, and let a failed preparation be tried again."""
    with begin(engine) as connection:
        execute(connection, "reopen_study", study_id=study_id)
        execute(connection, "reopen_preparation", study_id=study_id)


def touch_active(engine: Engine, study_id: int) -> None:
    """Count the time since the last touch, one minute at most, as time in which somebody worked."""
    with begin(engine) as connection:
        execute(connection, "touch_active", study_id=study_id)


def touch_gpu(engine: Engine, worker_id: str) -> None:
    """Count the time since this worker's last touch in which it held a lease, one minute at most.

    To be called at every beat by a worker on a GPU, also right after a lease has ended.
    """
    with begin(engine) as connection:
        execute(connection, "touch_gpu", worker_id=worker_id)


def budget_state(connection: Connection, study_id: int) -> BudgetState:
    """How much of the budget is spent; exact inside `study_turn`."""
    return BudgetState(**execute(connection, "budget_state", study_id=study_id).mappings().one())


def awaits_measuring(connection: Connection, study_id: int) -> bool:
    """Whether a trial waits for a worker that may measure its latency."""
    return bool(execute(connection, "awaits_measuring", study_id=study_id).scalar_one())


def stop_unmeasured(connection: Connection, study_id: int) -> int:
    """End the trials that still wait for a machine that may measure; how many there were."""
    return execute(connection, "stop_unmeasured", study_id=study_id).rowcount


def paused_for_time(connection: Connection, study_id: int) -> list[int]:
    """Trials that are paused because the study's hours were spent."""
    return list(execute(connection, "paused_for_time", study_id=study_id).scalars())
