"""`kdsearch worker list`: who works on a study, and when each was last seen."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import output
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdsearch.store.reads import WorkerRow

SILENT_S = 120.0
"""After so long without a sign of life a worker is called silent; it gives one every few seconds."""


def list_workers(
    options: Options,
    study: StudyArgument,
    everything: Annotated[bool, typer.Option("--all", help="Those that have left, too.")] = False,
) -> None:
    """List the workers of a study: what each does, and when it was last seen.

    Example: kdsearch worker list sms-spam
    """
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        found = reads.workers(store.engine, row.id)
        running = {trial.worker: trial.number for trial in reads.trials(store.engine, row.id, "running")}
    now = datetime.now(UTC)
    rows = [
        {**asdict(worker), "trial": running.get(worker.id), "doing": doing(worker, now)}
        for worker in found
        if everything or worker.state == "active"
    ]
    output.show(
        options,
        "workers",
        {"study": study, "workers": rows},
        human=lambda: [_table(rows, now)] if rows else [],
        ids=(worker["id"] for worker in rows),
        rows=rows,
    )
    if not rows and not options.json:
        left = f" ({len(found)} have left; --all shows them)" if found else ""
        output.say(f"nobody works on it{left}; to: kdsearch worker start --study {study}", options=options)


def doing(worker: WorkerRow, now: datetime) -> str:
    """In a word."""
    if worker.state != "active":
        return "left"
    if (now - worker.seen_at).total_seconds() > SILENT_S:
        return "silent"
    return "leaving" if worker.draining else "at work"


def _table(rows: list[dict[str, Any]], now: datetime) -> RenderableType:
    from rich.text import Text

    made = output.table("worker", "doing", "trial", "device", "host", "pid", "seen", right=("trial", "pid"))
    styles = {"silent": "yellow", "left": "dim"}
    for row in rows:
        seconds = max(0.0, (now - row["seen_at"]).total_seconds())
        trial = "" if row["trial"] is None else str(row["trial"])
        cells = (row["id"], row["doing"], trial, row["device"], row["host"], str(row["pid"]), ago(seconds))
        made.add_row(*map(Text, cells), style=styles.get(row["doing"], ""))
    return made


def ago(seconds: float) -> str:
    """``12 s ago``, ``5 min ago``, ``3.4 h ago``."""
    if seconds < 100:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 6000 else f"{seconds / 3600:.1f} h ago"
