"""What of a study's budget is spent, and why it ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from kdsearch.store.reads import StudyRow

STATES = ("complete", "stopped", "rejected", "failed")


def finished(row: StudyRow) -> int:
    """How many trials of a study have ended, whichever way."""
    return sum(row.counts.get(state, 0) for state in STATES)


def budget_data(row: StudyRow) -> dict[str, float | int | None]:
    """What there is to spend."""
    return {
        "trials": row.budget_trials,
        "epochs": row.budget_epochs,
        "hours": row.budget_hours,
        "gpu_hours": row.budget_gpu_hours,
        "failed": row.budget_failed,
    }


def spent_data(row: StudyRow) -> dict[str, float | int]:
    """What of it is spent, under the same names; repeats of finalists are not in it, but for the hours."""
    return {
        "trials": sum(row.counts.values()),
        "epochs": row.epochs_run,
        "hours": row.active_seconds / 3600,
        "gpu_hours": row.gpu_seconds / 3600,
        "failed": row.counts.get("failed", 0),
    }


def budget_text(row: StudyRow) -> str:
    """In a line: ``12 of 40 trials, 31 of 60 epochs, 0.12 hours, 0 of at most 10 failures``."""
    return ", ".join(_parts(row))


def _parts(row: StudyRow) -> Iterator[str]:
    limits, spent = budget_data(row), spent_data(row)
    for name in ("trials", "epochs", "hours", "gpu_hours"):
        limit, used = limits[name], spent[name]
        if limit is None and name == "gpu_hours" and not used:
            continue
        shown = f"{used:.2f}" if isinstance(used, float) else str(used)
        yield f"{shown}{'' if limit is None else f' of {limit:g}'} {name.replace('gpu_hours', 'GPU hours')}"
    yield f"{spent['failed']} of at most {row.budget_failed} failures"


def why_ended(engine: Engine, row: StudyRow) -> str:
    """Why a study that is done begins no further trial: a person stopped it, or its budget, or its search."""
    if row.error:
        return row.error
    from kdsearch.core.studyfile import spec_from_json
    from kdsearch.search import ending
    from kdsearch.store import studies
    from kdsearch.store.transactions import begin

    spec = spec_from_json(row.spec)
    with begin(engine) as connection:
        budget = studies.budget_state(connection, row.id)
    if why := ending.spent(budget, spec):
        return why
    plateau = spec.search.plateau
    return ending.EXHAUSTED if plateau is None else ending.SETTLED_OR_EXHAUSTED
