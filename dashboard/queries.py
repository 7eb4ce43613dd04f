"""What the pages show, read from Postgres by `store.reads`; a database that is away is one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from kdsearch.core.errors import StorageError
from kdsearch.store import reads
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


@contextmanager
def _explained() -> Iterator[None]:
    """Driver errors as StorageError, without the URL, which may hold a password."""
    try:
        yield
    except OperationalError as error:
        hint = "Is the server running? `kdsearch db status` says more."
        raise StorageError("The database cannot be reached.", hint=hint) from error
    except ProgrammingError as error:
        hint = "Bring it up to date with `kdsearch db upgrade`."
        raise StorageError("The database does not have kdsearch's tables.", hint=hint) from error


def study_names(engine: Engine) -> list[str]:
    """Every study, newest first."""
    with _explained():
        rows = reads.studies(engine)
    return [row.name for row in sorted(rows, key=lambda row: row.created_at, reverse=True)]


def snapshot(engine: Engine, name: str) -> Snapshot:
    """One study; NotFoundError if it has gone."""
    with _explained():
        study = reads.study(engine, name)
        return Snapshot(study=study, trials=tuple(reads.trials(engine, study.id)))
