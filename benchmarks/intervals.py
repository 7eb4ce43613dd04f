"""Means and differences over seeds, with 95 % intervals.

A mean over few seeds gets Student's t. The difference of two arms is paired twice: the same seeds and the
same rows stand on both sides, and both are resampled, so that the interval covers another run on other texts.
Few seeds say little of how far seeds lie apart: where all agree, an interval from three is too narrow.
Letters: N rows, C classes, S seeds, A arms, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from kdsearch.measure import quality
from kdsearch.measure.standing import of_drawn_seeds

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
SEED = 17
DRAWS = 2000


class Estimate(NamedTuple):
    """A figure with its 95 % interval, as shares."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """``85.4 ± 0.9``; without the interval where it is not known."""
        half = (self.high - self.low) / 2
        return f"{100 * self.value:.1f}" + (f" ± {100 * half:.1f}" if np.isfinite(half) else "")

    def points(self) -> str:
        """``+1.3 (-0.2 to +2.7)``."""
        value, low, high = (round(100 * figure, 1) + 0.0 for figure in self)  # no "-0.0"
        return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"

    @property
    def verdict(self) -> str:
        """What the interval says of a difference."""
        if self.low > 0:
            return "yes"
        return "no, the contrary" if self.high < 0 else "not decided at this scale"


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean and its t-interval; of a single seed nothing is known but the value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)


def difference(
    first: Sequence[FloatArray],
    second: Sequence[FloatArray],
    labels_N: npt.NDArray[np.int64],
    *,
    labels: tuple[str, ...],
    objective: str,
) -> Estimate:
    """Mean objective of the first arm minus that of the second; entry s of both is of the same seed."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} seeds against {len(second)}")
    arms = [*first, *second]
    values_AD = quality.resampled(arms, labels_N, labels=labels, objective=objective, seed=SEED, draws=DRAWS)
    gains_SD = values_AD[: len(first)] - values_AD[len(first) :]
    low, high = np.percentile(of_drawn_seeds(gains_SD, seed=SEED), quality.PERCENTILES)
    scores = [quality.score(a, labels_N, labels=labels, objective=objective).quality for a in arms]
    found = float(np.mean(scores[: len(first)]) - np.mean(scores[len(first) :]))
    return Estimate(found, float(low), float(high))


def contrast(arms: Sequence[tuple[int, BoolArray]], counted_SN: BoolArray) -> Estimate:
    """Sum over arms of sign times share of right rows, of those that count; all resampled together.

    With every row counting the share is accuracy, with those of a class its recall, with those that some
    historical teacher gets right coverage. Entry s of every array is of the same seed.
    """
    num_rows = counted_SN.shape[1]
    rng = np.random.default_rng(SEED)
    weights_DN = rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=DRAWS).astype(np.float64)
    counts_SN = counted_SN.astype(np.float64)

    def shares(weights_XN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        totals_SX = np.maximum(counts_SN @ weights_XN.T, 1.0)
        parts = [sign * ((hits_SN & counted_SN) @ weights_XN.T) / totals_SX for sign, hits_SN in arms]
        return np.asarray(np.sum(parts, axis=0))

    found = float(shares(np.ones((1, num_rows))).mean())
    low, high = np.percentile(of_drawn_seeds(shares(weights_DN), seed=SEED), quality.PERCENTILES)
    return Estimate(found, float(low), float(high))
