"""What one replay is worth: its line in the journal, and the figures that are made of it.

Regret is the share of the table's best hypervolume that the trials finished so far do not have, each at its
mean over seeds, whatever the search saw of it. It is a step function of the epochs that all trials had
together (rows seen, as every epoch has as many), and 1 before the first trial ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.search.simulator import Story
from benchmarks.search.truth import Truth
from kdsearch.core.pareto import front

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finished replay; T steps, one for each trial that ended."""

    method: str
    workers: int
    seed: int
    budget_epochs: int
    epochs_per_training: int
    epochs_T: tuple[int, ...]
    share_T: tuple[float, ...]
    """Of the best hypervolume, what was found by then."""
    handed_over: float
    """That share of the front as the search saw it at the end, which luck with seeds may have misled."""
    num_trials: int
    num_failed: int
    num_promoted: int
    num_stopped: int
    wrong_stops: int
    """Stopped trials that would have been on the front of what was found."""
    lost: float
    """Share of the best hypervolume that all stopped trials together would have added."""
    epochs: int
    simulated_s: float
    """From the first epoch to the last by the simulated clock."""
    took_s: float
    """Of processor time that this replay cost: nearly all of it is the sampler's."""

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return vars(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Line:
        """From the journal."""
        names = cls.__dataclass_fields__
        known: dict[str, Any] = {name: value for name, value in data.items() if name in names}
        return cls(**{**known, "epochs_T": tuple(known["epochs_T"]), "share_T": tuple(known["share_T"])})

    # ---------------------------------------------------------------- figures

    def share_at(self, epochs: float) -> float:
        """Of the best hypervolume, after so many epochs."""
        place = int(np.searchsorted(self.epochs_T, epochs, side="right"))
        return self.share_T[place - 1] if place else 0.0

    def regret_at(self, epochs: float) -> float:
        """What is missing of it."""
        return 1.0 - self.share_at(epochs)

    @property
    def mean_regret(self) -> float:
        """Over the whole budget: anytime performance, the area under the curve of regret."""
        ends = np.minimum([0, *self.epochs_T, self.budget_epochs], self.budget_epochs)
        regret = 1.0 - np.array([0.0, *self.share_T])
        return float((np.diff(ends) * regret).sum() / self.budget_epochs)

    def cost_of(self, share: float) -> float:
        """Whole trainings' worth of epochs until that share was reached; infinite if it never was."""
        reached = np.flatnonzero(np.array(self.share_T) >= share)
        return self.epochs_T[int(reached[0])] / self.epochs_per_training if len(reached) else float("inf")


def line_of(
    story: Story, truth: Truth, *, method: str, workers: int, seed: int, budget_epochs: int, took_s: float
) -> Line:
    """What came of a replay."""
    rows = [one.row for one in story.ended]
    seen = [(one.quality, float(truth.log_ms_C[one.row])) for one in story.ended]
    return Line(
        method=method,
        workers=workers,
        seed=seed,
        budget_epochs=budget_epochs,
        epochs_per_training=truth.table.num_epochs,
        epochs_T=tuple(one.epochs for one in story.ended),
        share_T=tuple(_digits(share) for share in _shares(rows, truth)),
        handed_over=_digits(truth.share([rows[i] for i in front(seen)])),
        num_trials=story.num_trials,
        num_failed=story.num_failed,
        num_promoted=story.num_promoted,
        num_stopped=len(story.stopped),
        wrong_stops=sum(truth.adds(row, rows) for row in story.stopped),
        lost=_digits(truth.share([*rows, *story.stopped]) - truth.share(rows)),
        epochs=story.epochs,
        simulated_s=round(story.seconds, 3),
        took_s=round(took_s, 3),
    )


def _shares(rows: Sequence[int], truth: Truth) -> list[float]:
    """After each further row."""
    return [truth.share(rows[: i + 1]) for i in range(len(rows))]


def _digits(share: float) -> float:
    """Rounded where no figure shows it, so that reaching all of it is reaching 1."""
    return round(share, 9) + 0.0
