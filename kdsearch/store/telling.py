"""What Optuna is to be told: results are on record here first, whatever falls between is told later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from kdsearch.core.records import Latency, TrialState
from kdsearch.store import reads
from kdsearch.store.sql import execute, numbers
from kdsearch.store.transactions import begin, repeatable


@dataclass(frozen=True, kw_only=True)
class Untold:
    """A finished trial that Optuna has not heard of."""

    number: int
    optuna_trial_id: int
    state: TrialState
    quality: float | None
    latency: Latency | None
    constraints: Mapping[str, float]


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
