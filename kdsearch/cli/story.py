"""What happened to a trial: its epochs, what was decided of it and why, who worked on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kdsearch.cli import output

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

    from kdsearch.store.reads import EpochRow
    from kdsearch.store.rows import AttemptRow, DecisionRow, RepeatRow


@dataclass(frozen=True)
class Story:
    """Everything in order of time; decisions and attempts are those of repeats, too."""

    epochs: Sequence[EpochRow]
    decisions: Sequence[DecisionRow]
    attempts: Sequence[AttemptRow]
    repeats: Sequence[RepeatRow]

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "decisions": [_decision_data(row) for row in self.decisions],
            "attempts": [asdict(row) for row in self.attempts],
            "repeats": [
                {"repeat": row.repeat, "seed": row.seed, "state": row.state, "quality": row.quality}
                for row in self.repeats
            ],
        }

    def human(self) -> Iterable[RenderableType]:
        """For people, what there is to tell beside the epochs."""
        from rich.text import Text

        if self.decisions:
            yield Text("\ndecisions", style="bold")
            for row in self.decisions:
                yield from _decision(row)
        if self.repeats:
            yield Text("\ntrained again", style="bold")
            yield from (Text(f"seed {r.seed}: {r.state} {output.figure(r.quality, 4)}") for r in self.repeats)
        if self.attempts:
            yield Text("\nattempts", style="bold")
            for attempt in self.attempts:
                yield from _attempt(attempt)


def _decision_data(row: DecisionRow) -> dict[str, Any]:
    decision = row.decision
    own = {"repeat": row.repeat, "attempt": row.attempt, "at": row.at}
    return {**own, **asdict(decision), "inputs": dict(decision.inputs)}


def _decision(row: DecisionRow) -> Iterable[RenderableType]:
    from rich.text import Text

    decision = row.decision
    epoch = f" after epoch {decision.epoch}" if decision.epoch is not None else ""
    head = f"{_at(row.at)}  {decision.action}{epoch} ({decision.rule}){_of_repeat(row.repeat)}"
    yield Text(f"{head}: {decision.reason}")
    if decision.inputs:
        yield Text(f"  {_inputs(decision.inputs)}", style="dim")


def _attempt(row: AttemptRow) -> Iterable[RenderableType]:
    from rich.text import Text

    until = "goes on" if row.ended_at is None else f"{row.ended}, {_at(row.ended_at)}"
    yield Text(f"{row.attempt}{_of_repeat(row.repeat)}: {row.worker}, {_at(row.started_at)} to {until}")
    if row.traceback:
        yield Text(row.traceback.rstrip(), style="red")


def _of_repeat(repeat: int) -> str:
    return f" of repeat {repeat}" if repeat else ""


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _inputs(inputs: Mapping[str, float | int | str | None]) -> str:
    def shown(value: float | int | str | None) -> str:
        return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)

    return ", ".join(f"{name} {shown(value)}" for name, value in inputs.items())
