"""What a pruner is: at a rung it lets a trial go on or pauses it, and it may call a paused one back.

A pruner is a pure function of what is known: no database, no clock, no state of its own, so that the same
code decides in a study and in a replay of one. A paused trial keeps its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from kdsearch.core.records import Decision, Tried
from kdsearch.core.spec import RungsSpec

Figure: TypeAlias = float | int | str | None


@dataclass(frozen=True)
class Ladder:
    """The rungs of a study. Every epoch of every trial has the same number of rows: a rung is rows seen."""

    rungs: tuple[int, ...]
    """Epochs in rising order, each below `epochs`."""
    epochs: int
    """Of a whole training."""
    factor: int
    """One of so many goes on, where a pruner counts."""

    @classmethod
    def of(cls, spec: RungsSpec, *, epochs: int) -> Ladder:
        """``first``, ``first * factor``, ... below ``epochs``."""
        rungs, rung = [], spec.first
        while rung < epochs:
            rungs.append(rung)
            rung *= spec.factor
        return cls(tuple(rungs), epochs, spec.factor)

    def reached(self, trial: Tried) -> int | None:
        """The last rung that lies at or before the trial's last scored epoch; None before the first one."""
        last = max(trial.qualities, default=0)
        return max(
            (rung for rung in self.rungs if rung <= last and trial.best_by(rung) is not None), default=None
        )


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a pruner looks at beside the trial itself."""

    tried: Sequence[Tried]
    """Every trial of the study, the one in question included, each with the scored epochs known so far."""
    ladder: Ladder
    quality_floor: float
    """A student below it is worth nothing."""


class Pruner(Protocol):
    """Stops early and calls back."""

    def judge(self, trial: Tried, situation: Situation) -> Decision:
        """At a rung, `max(trial.qualities)` or later: ``continue`` or ``pause``.

        A trial without a scored epoch yet always continues.
        """
        ...

    def promotions(self, situation: Situation) -> Sequence[tuple[int, Decision]]:
        """Paused trials that should go on (by number), the most promising first."""
        ...


def keep_on(
    rule: str, reason: str, *, epoch: int | None = None, inputs: Mapping[str, Figure] | None = None
) -> Decision:
    """The decision to go on."""
    return Decision(action="continue", rule=rule, reason=reason, epoch=epoch, inputs=inputs or {})


MakePruner: TypeAlias = Callable[[], Pruner]
