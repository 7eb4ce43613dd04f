"""A random forest as a model of quality: for many trials, and to compare the Gaussian process with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdsearch.core.records import TrialConfig
from kdsearch.search.features import Features, FloatArray
from kdsearch.search.plan import Plan
from kdsearch.search.surrogate import QualityModel

NUM_TREES = 100
MIN_LEAF = 2


@dataclass(frozen=True)
class Forest:
    """The spread is that between the trees, which disagree where there are few trials."""

    features: Features

    def fit(
        self, configs: Sequence[TrialConfig], qualities: Sequence[float], variances: Sequence[float] = ()
    ) -> FittedForest:
        """A quality that is itself uncertain counts less."""
        from sklearn.ensemble import RandomForestRegressor

        X_NK, y_N = self.features.encode(configs), np.array(qualities, np.float64)
        spread = float(y_N.var()) or 1.0
        weights = spread / (spread + np.array(variances or [0.0] * len(y_N)))
        forest = RandomForestRegressor(NUM_TREES, min_samples_leaf=MIN_LEAF, max_features=0.5, random_state=0)
        forest.fit(X_NK, y_N, weights)
        return FittedForest(self, forest, tuple(configs), y_N)


@dataclass(frozen=True)
class FittedForest:
    """Of scikit-learn."""

    model: Forest
    forest: object
    configs: tuple[TrialConfig, ...]
    qualities_N: FloatArray

    def predict(self, configs: Sequence[TrialConfig]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation over the trees."""
        X_MK = self.model.features.encode(configs)
        trees = np.stack([tree.predict(X_MK) for tree in self.forest.estimators_])  # type: ignore[attr-defined]
        return trees.mean(0), np.maximum(trees.std(0), 1e-6)

    def believing(self, configs: Sequence[TrialConfig]) -> FittedForest:
        """Grown anew."""
        if not configs:
            return self
        mean, _ = self.predict(configs)
        return self.model.fit([*self.configs, *configs], [*self.qualities_N, *mean])


def forest(plan: Plan) -> QualityModel:
    """Over all that the study searches."""
    return Forest(Features.of(plan))
