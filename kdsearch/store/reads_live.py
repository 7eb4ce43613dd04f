"""What goes on in a study now: whether anything changed, who runs what, what went wrong, what matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Engine

from kdsearch.core.errors import NotFoundError
from kdsearch.core.records import TrialState
from kdsearch.store.importances import Objective
from kdsearch.store.sql import execute, numbers
from kdsearch.store.studies import StudyState
from kdsearch.store.transactions import begin


@dataclass(frozen=True, kw_only=True)
class Change:
    """How far a study is, in a few figures that are cheap to ask for."""

    state: StudyState
    num_trials: int
    num_finished: int
    token: str
    """Another one whenever a trial, its epochs, a request, the budget or the study's state has changed."""


@dataclass(frozen=True, kw_only=True)
class RunningRow:
    """A trial, or a repeat of one, that a worker runs now."""

    number: int
    repeat: int
    attempt: int
    worker: str
    student: str
    scheme: str
    started_at: datetime
    """When this worker took it."""
    epochs_run: int
    epochs: int
    """Of the whole training."""
    seconds_left: float | None
    """At the pace of its own epochs so far; None before the first has ended."""


@dataclass(frozen=True, kw_only=True)
class TroubleRow:
    """An attempt that did not come to a good end."""

    number: int
    repeat: int
    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime
    ended: Literal["lost", "hang", "crash", "out_of_memory", "exception"]
    traceback: str
    state: TrialState
    """Of the trial now: it may have been brought to its end by another worker since."""
    message: str
    """Why the trial failed, where this attempt was the end of it; empty otherwise."""


@dataclass(frozen=True, kw_only=True)
class ImportanceRow:
    """How much each parameter says about an objective."""

    objective: Objective
    num_trials: int
    """Complete trials that it was worked out from."""
    importances: Mapping[str, float]
    """Shares by dotted name, the largest first; they add up to 1."""
    at: datetime


def change(engine: Engine, study_id: int) -> Change:
    """How far a study is; NotFoundError where it was deleted."""
    with begin(engine) as connection:
        row = execute(connection, "change", study_id=study_id).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"There is no study with id {study_id}", hint="kdsearch study list")
    return Change(**row)


def running(engine: Engine, study_id: int) -> list[RunningRow]:
    """What workers run now, by trial."""
    with begin(engine) as connection:
        rows = execute(connection, "list_running", study_id=study_id).mappings().all()
    return [RunningRow(**{**row, "seconds_left": _seconds(row["seconds_left"])}) for row in rows]


def _seconds(found: Any) -> float | None:
    return None if found is None else float(found)


def troubles(engine: Engine, study_id: int, *, most: int = 200) -> list[TroubleRow]:
    """Attempts that did not come to a good end, the newest first."""
    with begin(engine) as connection:
        rows = execute(connection, "list_troubles", study_id=study_id, most=most).mappings()
        return [TroubleRow(**row) for row in rows]


def importances(engine: Engine, study_id: int) -> list[ImportanceRow]:
    """Of quality and of latency; empty before a worker has worked them out."""
    with begin(engine) as connection:
        rows = execute(connection, "list_importances", study_id=study_id).mappings().all()
    return [ImportanceRow(**{**row, "importances": _ranked(row["importances"])}) for row in rows]


def _ranked(stored: Mapping[str, float | str]) -> dict[str, float]:
    return dict(sorted(numbers(stored).items(), key=lambda item: (-item[1], item[0])))
