"""Exporting what a request asks for: the worker and the export room are strangers, and are joined here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.cli import within as ceilings
from kdsearch.core.errors import UsageError

if TYPE_CHECKING:
    from kdsearch.store.connect import Store
    from kdsearch.store.reads import StudyRow, TrialRow


def export_asked(
    store: Store, study: str, arguments: Mapping[str, Any], to: Path, on_progress: Callable[[str], None]
) -> int:
    """Export the trial of a number, or the best one within ceilings, into a new folder; its number.

    Raises as `kdsearch export` does.
    """
    from kdsearch.export.bundle import export_student
    from kdsearch.store import reads

    row = reads.study(store.engine, study)
    chosen = _chosen(store, row, arguments)
    export_student(store, row, chosen, to=to, on_progress=on_progress)
    return chosen.number


def _chosen(store: Store, study: StudyRow, arguments: Mapping[str, Any]) -> TrialRow:
    from kdsearch.store import reads

    trial, within = arguments.get("trial"), arguments.get("within", {})
    if not set(arguments) <= {"trial", "within"} or not isinstance(within, dict):
        raise UsageError("an export is of a trial or within ceilings", hint='for example: {"trial": 3}')
    if type(trial) is int:
        return reads.trial(store.engine, study.id, trial)
    if trial is not None:
        raise UsageError(f"{trial!r} is not the number of a trial", hint=f"kdsearch pareto {study.name}")
    asked = ceilings.parse([f"{name}={most}" for name, most in within.items()])
    trials, standings = reads.trials(store.engine, study.id), reads.standings(store.engine, study.id)
    number = ceilings.best_of(trials, asked, study=study.name, standings=standings).number
    return reads.trial(store.engine, study.id, number)
