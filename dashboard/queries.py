"""What the pages show, read from Postgres by `store.reads`; a database that is away is a StorageError."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from kdsearch.store import migrate, reads
from kdsearch.store.connect import make_engine
from kdsearch.store.reads import StudyRow, TrialRow


@dataclass(frozen=True)
class Snapshot:
    """A study and its trials, read at one moment."""

    study: StudyRow
    trials: tuple[TrialRow, ...]

    @property
    def limit_ms(self) -> float | None:
        """The study's own latency limit; trials over it are infeasible already."""
        ceiling = (self.study.spec.get("constraints") or {}).get("latency_ms")
        return None if ceiling is None else float(ceiling["max"])


def connect(url: str) -> Engine:
    """An engine on a database that has the tables of this kdsearch; StorageError otherwise."""
    engine = make_engine(url)
    try:
        migrate.require_current(engine)
    except Exception:
        engine.dispose()
        raise
    return engine


def study_names(engine: Engine) -> list[str]:
    """Every study, newest first."""
    return [row.name for row in reads.studies(engine)]


def snapshot(engine: Engine, name: str) -> Snapshot:
    """One study; NotFoundError if it has gone."""
    study = reads.study(engine, name)
    return Snapshot(study=study, trials=tuple(reads.trials(engine, study.id)))
