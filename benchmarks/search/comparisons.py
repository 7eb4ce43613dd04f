"""Methods against each other over the same seeds: medians with intervals, wins, paired tests, costs.

Entry s of every sequence is of the same replay seed: both searches drew the same training of each
configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.search.regret import Line

FloatArray = npt.NDArray[np.float64]
DRAWS = 2000
SEED = 17
TIE = 1e-9


class Interval(NamedTuple):
    """A median over seeds with its 95 % bootstrap interval; infinite where most never got there."""

    value: float
    low: float
    high: float


class Versus(NamedTuple):
    """Against the baseline at one point of the budget; lower figures win."""

    wins: int
    ties: int
    losses: int
    p: float
    """Two-sided Wilcoxon signed-rank test, before Holm's correction."""
    cliff: float
    """Cliff's delta: +1 if every seed of it is better than every one of the baseline, -1 if worse."""


def median(values: Sequence[float]) -> Interval:
    """Percentile bootstrap over seeds; infinite values are as large as they are."""
    found = np.asarray(values, np.float64)
    draws_DS = np.random.default_rng(SEED).integers(len(found), size=(DRAWS, len(found)))
    medians_D = _median(found[draws_DS])
    low, high = np.quantile(medians_D, (0.025, 0.975), method="nearest")
    return Interval(float(_median(found[None])[0]), float(low), float(high))


def _median(values_DS: FloatArray) -> FloatArray:
    """Along the last axis; of an even number the mean of the two middle ones, infinite if one is."""
    ordered, middle = np.sort(values_DS, axis=1), values_DS.shape[1] // 2
    upper = ordered[:, middle]
    lower = upper if values_DS.shape[1] % 2 else ordered[:, middle - 1]
    return np.asarray((lower + upper) / 2)


def versus(own: Sequence[float], baseline: Sequence[float]) -> Versus:
    """Paired by seed."""
    gaps = np.asarray(own) - np.asarray(baseline)
    gaps[np.abs(gaps) < TIE] = 0.0
    p = float(stats.wilcoxon(gaps, zero_method="zsplit").pvalue) if gaps.any() else 1.0
    every = np.subtract.outer(np.asarray(own), np.asarray(baseline))
    better, worse = int((every < -TIE).sum()), int((every > TIE).sum())
    return Versus(
        int((gaps < 0).sum()),
        int((gaps == 0).sum()),
        int((gaps > 0).sum()),
        p,
        (better - worse) / every.size,
    )


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Corrected for having asked so many questions (Holm 1979)."""
    corrected, highest = {}, 0.0
    for place, (name, p) in enumerate(sorted(ps.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(ps) - place)))
        corrected[name] = highest
    return corrected


def paired(own: Sequence[Line], baseline: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """The replays whose seed both have, in the order of seeds."""
    ours, theirs = {one.seed: one for one in own}, {one.seed: one for one in baseline}
    both = sorted(ours.keys() & theirs.keys())
    return [ours[s] for s in both], [theirs[s] for s in both]


def training_needed(own: Sequence[Line], baseline: Sequence[Line]) -> list[float]:
    """Of the whole budget, the share after which each replay has what the baseline has at its end.

    Both of the same seed. The baseline's own are below 1: what it has at its end it often has earlier.
    """
    ours, theirs = paired(own, baseline)
    return [
        one.cost_of(other.share_at(other.budget_epochs)) * one.epochs_per_training / one.budget_epochs
        for one, other in zip(ours, theirs, strict=True)
    ]


def training_for(own: Sequence[Line], share: float) -> list[float]:
    """Of the whole budget, the share after which each replay has so much of the best hypervolume."""
    return [one.cost_of(share) * one.epochs_per_training / one.budget_epochs for one in own]
