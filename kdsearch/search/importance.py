"""How much each parameter says about an objective: permutation importance (Breiman 2001) of a random forest.

Notable:
- A parameter that exists only beside some student or scheme counts for the trials that have it. Where it is
  missing it looks like its own mean, so that only `student` and `scheme` tell whose trial it is.
- Every row is predicted by a forest that has not seen it, and so a parameter of noise has no importance.
- Not Optuna's evaluators (tried, see docs/log.md): fANOVA leaves conditional parameters out, PED-ANOVA asks
  what sets the best tenth apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Scalar

Floats = npt.NDArray[np.float64]
FEWEST = 10
"""Trials below which nothing can be said."""
MOST = 500
"""Trials that are looked at, drawn evenly from more: it takes a second."""
NUM_TREES = 30
FOLDS = 5
SHUFFLES = 3


def importances(
    configs: Sequence[TrialConfig], values: Sequence[float], *, seed: int = 0
) -> dict[str, float]:
    """Share of each parameter that varies, by dotted name; they add up to 1.

    Empty where there are too few trials, or where no parameter says anything.
    """
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(configs))[:MOST]
    params, y_N = [configs[i].params for i in kept], np.array([values[i] for i in kept], np.float64)
    names = [name for name in _names(params) if len({row.get(name) for row in params}) > 1]
    if len(kept) < FEWEST or not names or not y_N.std():
        return {}
    X_NK = np.stack([_column([row.get(name) for row in params]) for name in names], axis=1)
    there_NK = np.array([[name in row for name in names] for row in params])
    harm_K = sum(_harm(X_NK, there_NK, y_N, fold, rng) for fold in _folds(len(kept)))
    positive_K = np.maximum(np.asarray(harm_K), 0.0)
    if not positive_K.sum():
        return {}
    return dict(zip(names, map(float, positive_K / positive_K.sum()), strict=True))


def _names(params: Sequence[Mapping[str, Scalar]]) -> list[str]:
    return list(dict.fromkeys(name for row in params for name in row))


def _column(values: Sequence[Scalar | None]) -> Floats:
    """Numbers as they are, names by their place in an order; what is missing as the mean of what is there."""
    there = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in there):
        codes = {value: float(value) for value in there if isinstance(value, int | float)}
    else:
        codes = {value: float(i) for i, value in enumerate(sorted(set(there), key=str))}  # type: ignore[misc]
    mean = float(np.mean([codes[value] for value in there]))  # type: ignore[index]
    return np.array([mean if value is None else codes[value] for value in values])  # type: ignore[index]


def _folds(count: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Which rows are held out; every row once."""
    for fold in range(FOLDS):
        yield np.arange(count) % FOLDS == fold


def _harm(
    X_NK: Floats,
    there_NK: npt.NDArray[np.bool_],
    y_N: Floats,
    held_N: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Floats:
    """By how much the squared error of the held-out rows grows as one parameter is shuffled among them."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(NUM_TREES, min_samples_leaf=2, random_state=0)
    forest.fit(X_NK[~held_N], y_N[~held_N])
    X_MK, there_MK, y_M = X_NK[held_N], there_NK[held_N], y_N[held_N]
    usual = ((forest.predict(X_MK) - y_M) ** 2).sum()
    harm_K = np.zeros(X_NK.shape[1])
    for k in range(X_NK.shape[1]):
        rows = np.flatnonzero(there_MK[:, k])
        shuffled_SMK = np.repeat(X_MK[None], SHUFFLES, axis=0)
        for shuffled_MK in shuffled_SMK:
            shuffled_MK[rows, k] = X_MK[rng.permutation(rows), k]
        predicted_SM = forest.predict(shuffled_SMK.reshape(-1, X_NK.shape[1])).reshape(SHUFFLES, -1)
        harm_K[k] = ((predicted_SM - y_M) ** 2).sum(1).mean() - usual
    return harm_K
