"""Workers as a table: who runs what, who is leaving, who has fallen silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboard import wording
from kdsearch.store.columns import ALIVE_S
from kdsearch.store.reads import WorkerRow
from kdsearch.store.reads_live import RunningRow, TroubleRow

ORDER = ("silent", "working", "draining", "idle", "gone")
"""Whoever needs looking at comes first."""
ENDED = {
    "lost": "lost: its worker fell silent",
    "hang": "hang: it made no step for too long",
    "crash": "crash: its worker was killed",
    "out_of_memory": "out of memory",
    "exception": "exception",
}


@dataclass(frozen=True)
class Crew:
    """Everybody who ever worked on a study, at one moment."""

    workers: Sequence[WorkerRow]
    running: Sequence[RunningRow]
    now: datetime
    """By the database's clock, as the workers' signs of life are."""

    def state(self, worker: WorkerRow) -> str:
        """``silent``, ``working``, ``draining``, ``idle`` or ``gone``."""
        if worker.state == "retired":
            return "gone"
        if (self.now - worker.seen_at).total_seconds() > ALIVE_S:
            return "silent"
        if worker.draining:
            return "draining"
        return "working" if any(row.worker == worker.id for row in self.running) else "idle"


def rows(crew: Crew) -> list[dict[str, Any]]:
    """A row per worker, the newest first among those of one state."""
    newest = sorted(crew.workers, key=lambda worker: worker.started_at, reverse=True)
    return [_row(crew, worker) for worker in sorted(newest, key=lambda w: ORDER.index(crew.state(w)))]


def _row(crew: Crew, worker: WorkerRow) -> dict[str, Any]:
    own = next((row for row in crew.running if row.worker == worker.id), None)
    return {
        "state": crew.state(worker),
        "worker": worker.id,
        "runs": wording.NONE if own is None else doing(own),
        "done": None if own is None else own.epochs_run / own.epochs,
        "for": wording.NONE if own is None else wording.duration((crew.now - own.started_at).total_seconds()),
        "left": wording.duration(own.seconds_left) if own is not None else wording.NONE,
        "last seen": wording.ago(worker.seen_at, crew.now),
        "works since": wording.ago(worker.started_at, crew.now),
        "device": worker.device,
        "host": f"{worker.host}, process {worker.pid}",
    }


def doing(row: RunningRow) -> str:
    """What it runs, in a few words."""
    again = f", repeat {row.repeat}" if row.repeat else ""
    return f"trial {row.number}{again}: {row.student}, {row.scheme}, epoch {row.epochs_run} of {row.epochs}"


def counts(crew: Crew) -> dict[str, int]:
    """How many are in each state that people ask about."""
    states = [crew.state(worker) for worker in crew.workers]
    named = {"Working": "working", "Idle": "idle", "Draining": "draining", "Silent": "silent"}
    return {label: states.count(state) for label, state in named.items()}


def silent(crew: Crew) -> list[WorkerRow]:
    """Workers that neither left nor showed themselves of late."""
    return [worker for worker in crew.workers if crew.state(worker) == "silent"]


def about_silent(crew: Crew) -> str:
    """What that means, and what becomes of their trials."""
    found = silent(crew)
    names = ", ".join(worker.id for worker in found[:3]) + (", …" if len(found) > 3 else "")
    return (
        f"{wording.plural(len(found), 'worker')} not seen for over {ALIVE_S:.0f} s: {names}. What they ran "
        "goes on with another worker once its lease runs out; look at the machines."
    )


def trouble_rows(found: Sequence[TroubleRow]) -> list[dict[str, Any]]:
    """Attempts that did not end well, the newest first."""
    return [
        {
            "when": row.ended_at,
            "trial": row.number,
            "attempt": row.attempt,
            "what": ENDED[row.ended],
            "worker": row.worker,
            "took": wording.duration((row.ended_at - row.started_at).total_seconds()),
            "the trial is now": row.state,
            "message": row.message or wording.NONE,
        }
        for row in found
    ]
