"""The quality that a training will end with, forecast at a rung from the trials that went to their end.

A linear regression of the final quality on the best quality so far. Schemes and students have a pace of
their own (high temperatures start slower, hint stages are not scored): each has an offset, and learning
rate and latency a slope, all shrunk towards none by as much as the marginal likelihood asks for. What is
uncertain in the coefficients is part of the forecast's spread, which is Student's t.

Trials that were stopped have no final quality, so only survivors are seen. That does not bend the regression
as long as everything that a stop looks at is among its regressors: best quality so far, scheme, student,
latency. What later rungs took away ended low for its quality here: the forecast errs upwards, which stops
less. Below the lowest quality that a survivor had at the rung nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from kdsearch.core.records import Tried

MIN_COMPLETED = 10
"""Trials that must have gone from the rung to the end before anything is forecast."""
LEVEL = 0.975
"""Of the one-sided upper bound."""
LEAST_SD = 1e-3
"""Equal configurations with two seeds differ by more than that."""
RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Variance of the shrunk coefficients over that of the residuals: the likeliest is taken."""
SLOPE_RATIO = 1e4
"""The same for the slope of the quality so far, which is as good as free."""

# R: ratios, F: columns
Array = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Final quality of one trial, as far as it can be told."""

    mean: float
    sd: float
    """Of the prediction: residual and coefficients."""
    upper: float
    """The final quality stays below it with probability `LEVEL`."""
    offset: float
    """What the trial's own scheme and student add to the mean."""
    num_completed: int
    """Trials that the regression stands on."""


@dataclass(frozen=True)
class Columns:
    """How a trial becomes a row: constant, quality so far, learning rate, latency, schemes, students."""

    rung: int
    schemes: tuple[str, ...]
    students: tuple[str, ...]
    lowest: float
    """Best quality so far of the survivor that had the least at the rung."""

    def row(self, trial: Tried) -> list[float]:
        """Unscaled."""
        config = trial.config
        best = max(trial.best_by(self.rung) or 0.0, self.lowest)
        own = [1.0, best, math.log(max(config.learning_rate, 1e-12)), math.log(trial.latency_ms or 1.0)]
        schemes = [float(config.scheme == s) for s in self.schemes]
        return own + schemes + [float(config.student == s) for s in self.students]


@dataclass(frozen=True)
class _Posterior:
    """Coefficients of the linear model; the covariance is in units of the residual variance."""

    weights: Array
    covariance: Array
    sd: float


def _posterior(rows: Array, final: Array) -> _Posterior:
    """Conjugate, with a free constant, under the ratio with the highest restricted likelihood."""
    num_rows, num_columns = rows.shape
    penalty_RF = np.repeat(1.0 / np.array(RATIOS)[:, None], num_columns, axis=1)
    penalty_RF[:, :2] = 0.0, 1.0 / SLOPE_RATIO
    precision_RFF = rows.T @ rows + penalty_RF[:, :, None] * np.eye(num_columns)
    covariance_RFF = np.linalg.inv(precision_RFF)
    moment = rows.T @ final
    weights_RF = covariance_RFF @ moment
    spread_R = np.maximum(final @ final - weights_RF @ moment, num_rows * LEAST_SD**2)
    evidence_R = -0.5 * (
        (num_rows - 1) * np.log(spread_R)
        + np.linalg.slogdet(precision_RFF)[1]
        + (num_columns - 2) * np.log(RATIOS)
    )
    best = int(np.argmax(evidence_R))
    sd = math.sqrt(float(spread_R[best]) / (num_rows - 1))
    return _Posterior(weights_RF[best], covariance_RFF[best], sd)


class Forecaster:
    """The regression at one rung."""

    def __init__(self, columns: Columns, completed: Sequence[Tried]) -> None:
        rows = np.array([columns.row(t) for t in completed])
        final = np.array([t.quality for t in completed], dtype=np.float64)
        self._columns, self._completed = columns, completed
        self._kinds = {(t.config.scheme, t.config.student) for t in completed}
        self._centre, self._scale = rows.mean(axis=0), rows.std(axis=0)
        self._centre[0], self._centre[4:] = 0.0, 0.0
        self._scale[0], self._scale[4:] = 1.0, 1.0
        self._scale[self._scale < 1e-9] = 1.0
        self._middle = float(final.mean())
        scaled = (rows - self._centre) / self._scale
        self._posterior = _posterior(scaled, final - self._middle)
        self._quantile = float(stdtrit(len(completed) - 1, LEVEL))

    @classmethod
    def of(cls, tried: Sequence[Tried], rung: int, *, at_least: int = MIN_COMPLETED) -> Forecaster | None:
        """None while fewer trials than that have gone from this rung to their end.

        A scheme or student of which none has may be forecast, too: what it adds is unknown, in the spread.
        """
        done = [t for t in tried if t.state == "complete" and t.quality is not None and t.latency_ms]
        done = sorted((t for t in done if t.best_by(rung) is not None), key=lambda t: t.number)
        if len(done) < at_least:
            return None
        columns = Columns(
            rung,
            tuple(sorted({t.config.scheme for t in tried})),
            tuple(sorted({t.config.student for t in tried})),
            min(t.best_by(rung) or 0.0 for t in done),
        )
        return cls(columns, done)

    def knows(self, trial: Tried) -> bool:
        """Whether a trial of the same scheme and student went to its end: no pace is guessed."""
        return (trial.config.scheme, trial.config.student) in self._kinds

    def forecast(self, trial: Tried) -> Forecast:
        """Of a trial scored by this rung. The best epoch counts: it never falls below what the trial has."""
        row = (np.array(self._columns.row(trial)) - self._centre) / self._scale
        found = self._posterior
        mean = self._middle + float(row @ found.weights)
        sd = found.sd * math.sqrt(1.0 + float(row @ found.covariance @ row))
        upper = mean + self._quantile * sd
        best = max(trial.qualities.values())
        return Forecast(
            mean=max(mean, best),
            sd=sd,
            upper=max(upper, best),
            offset=float(row[4:] @ found.weights[4:]),
            num_completed=len(self._completed),
        )
