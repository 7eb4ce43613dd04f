"""A study at a glance for the dashboard: its pulse in one cheap query, and all its trials as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from kdsearch.core.records import FINISHED
from kdsearch.store.sql import execute
from kdsearch.store.studies import StudyState, not_found
from kdsearch.store.transactions import begin

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.object_]
Flags = npt.NDArray[np.bool_]

ALIVE_S = 60.0
"""A worker that has not been seen for so long is not counted on."""


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """How far a study is; equal as long as nothing that a page shows has changed."""

    study_id: int
    state: StudyState
    error: str | None
    budget_trials: int
    counts: Mapping[str, int]
    """Trials by state; a state without trials is not in there."""
    marks: str
    num_standings: int
    num_alive: int
    """Workers seen within the last minute."""
    now: datetime
    """The database's clock."""

    @property
    def token(self) -> str:
        """Changes whenever a trial or the study has changed."""
        return f"{self.study_id} {self.state} {self.budget_trials} {self.num_standings} {self.marks}"

    @property
    def num_trials(self) -> int:
        """In whatever state."""
        return sum(self.counts.values())

    @property
    def num_finished(self) -> int:
        """Trials that ended, whichever way."""
        return sum(self.counts.get(state, 0) for state in FINISHED)


@dataclass(frozen=True, kw_only=True)
class TrialColumns:
    """Every trial of a study by number, a column a figure; NaN where there is none."""

    number: npt.NDArray[np.int64]
    state: Words
    origin: Words
    student: Words
    scheme: Words
    quality: Floats
    accuracy: Floats
    macro_f1: Floats
    recall: Floats
    """Of the class with the lowest."""
    coverage: Floats
    agreement: Floats
    p50_ms: Floats
    p90_ms: Floats
    p99_ms: Floats
    mean_ms: Floats
    size_mb: Floats
    num_params: Floats
    noisy: Flags
    feasible: Flags
    """Whether every constraint is known and met."""
    epochs_run: npt.NDArray[np.int64]
    train_seconds: Floats
    finished_at: Words
    """Aware datetimes; None before the end."""
    so_far: Floats
    """Best quality up to now of what runs or is paused."""

    def __len__(self) -> int:
        return len(self.number)

    @cached_property
    def throughput(self) -> Floats:
        """Queries per second, one at a time: 1000 / mean latency."""
        with np.errstate(divide="ignore"):
            return np.asarray(1000.0 / self.mean_ms, np.float64)

    @cached_property
    def complete(self) -> Flags:
        """Which have a quality."""
        return np.asarray(self.state == "complete", np.bool_)

    def where(self, kept: Flags | npt.NDArray[np.int64]) -> TrialColumns:
        """Only these, by a mask or by positions."""
        return TrialColumns(**{f.name: getattr(self, f.name)[kept] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Best:
    """The student to deploy of a study, without any budget."""

    study_id: int
    number: int
    student: str
    scheme: str
    quality: float
    """The mean over its seeds where it was trained with several."""
    latency_ms: float | None


TYPES: Mapping[str, type] = {
    **dict.fromkeys(("number", "epochs_run"), np.int64),
    **dict.fromkeys(("noisy", "feasible"), np.bool_),
    **dict.fromkeys(("state", "origin", "student", "scheme", "finished_at"), np.object_),
}


def pulse(engine: Engine, name: str) -> Pulse:
    """How far the study of that name is; NotFoundError if it has gone."""
    with begin(engine) as connection:
        row = execute(connection, "pulse", name=name, alive_s=ALIVE_S).mappings().one_or_none()
        if row is None:
            raise not_found(connection, name)
    return Pulse(**row)


def trial_columns(engine: Engine, study_id: int) -> TrialColumns:
    """All trials; ten thousand of them in a fraction of a second."""
    with begin(engine) as connection:
        rows = execute(connection, "trial_columns", study_id=study_id).all()
    values = list(zip(*rows, strict=True)) or [()] * len(fields(TrialColumns))
    names = [f.name for f in fields(TrialColumns)]
    return TrialColumns(
        **{
            name: np.array(column, dtype=TYPES.get(name, np.float64))
            for name, column in zip(names, values, strict=True)
        }
    )


def best_trials(engine: Engine) -> dict[int, Best]:
    """By the study's id; studies without a feasible trial are not in there."""
    with begin(engine) as connection:
        rows = execute(connection, "best_trials").mappings().all()
    return {row["study_id"]: Best(**row) for row in rows}
