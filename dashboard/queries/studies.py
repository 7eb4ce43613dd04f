"""Studies as the pages show them; a database that is away is a StorageError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from kdsearch.core.records import Standing
from kdsearch.store import columns, migrate, reads
from kdsearch.store.columns import TrialColumns
from kdsearch.store.connect import make_engine
from kdsearch.store.reads import StudyRow


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A study and its trials as columns, read at one moment."""

    study: StudyRow
    trials: TrialColumns
    standings: dict[int, Standing]
    """How sure each trial's place is, by number; empty before the study closed."""


def connect(url: str) -> Engine:
    """An engine that only reads; StorageError where the database lacks the tables of this kdsearch."""
    engine = make_engine(url, read_only=True)
    try:
        migrate.require_current(engine)
    except Exception:
        engine.dispose()
        raise
    return engine


def snapshot(engine: Engine, name: str) -> Snapshot:
    """One study; NotFoundError if it has gone."""
    study = reads.study(engine, name)
    return Snapshot(
        study=study,
        trials=columns.trial_columns(engine, study.id),
        standings={standing.number: standing for standing in reads.standings(engine, study.id)},
    )


def limit_ms(study: StudyRow) -> float | None:
    """The study's own latency limit; trials over it are infeasible already."""
    return limit(study, "latency_ms")


def limit(study: StudyRow, name: str) -> float | None:
    """The study's limit of that name, ``latency_ms`` or ``size_mb``."""
    ceiling: Any = (study.spec.get("constraints") or {}).get(name)
    return None if ceiling is None else float(ceiling["max"])
