"""What a configuration's quality will be, and how sure that is: a Gaussian process over mixed parameters.

The kernel is a sum of Matern-5/2 kernels: one over all parameters, and one each over those of the student, of
the scheme and of the training. The last three let what was learned of a scheme with one student count for
another; the first says where that is wrong. Length scales, variances and noise are the most probable ones
under log-normal priors, which also keeps the fit sane with five trials.

Letters: N trials, M asked configurations, F parameters, G kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from kdsearch.core.records import TrialConfig
from kdsearch.search.features import Features, FloatArray
from kdsearch.search.plan import Plan

MOST_TRIALS = 500
"""More are thinned out: the best ones stay, the others in equal steps."""
MOST_FITTED = 200
"""Trials that the length scales are fitted to."""
SQRT5 = 5.0**0.5
ALL = "all"


class Fitted(Protocol):
    """Knows the trials that it was fitted to."""

    def predict(self, configs: Sequence[TrialConfig]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the quality, without the noise of a single training."""
        ...

    def believing(self, configs: Sequence[TrialConfig]) -> Fitted:
        """As if these had turned out as predicted."""
        ...


class QualityModel(Protocol):
    """Learns qualities from trials."""

    def fit(
        self, configs: Sequence[TrialConfig], qualities: Sequence[float], variances: Sequence[float] = ()
    ) -> Fitted:
        """``variances``: of each quality, beside the noise that all have; none where it is left out."""
        ...


MakeModel: TypeAlias = Callable[[Plan], QualityModel]


@dataclass(frozen=True)
class Priors:
    """Mean and spread of the logarithms; targets have mean 0 and variance 1."""

    length: tuple[float, float] = (np.log(1.0), 1.0)
    variance: tuple[float, float] = (np.log(0.5), 1.0)
    noise: tuple[float, float] = (np.log(0.03), 1.0)


@dataclass(frozen=True)
class Kernel:
    """A sum over groups; each parameter has one length scale in all of them."""

    lengths_F: FloatArray
    variances_G: FloatArray
    noise: float
    members_GF: FloatArray
    """1 where the parameter is in the group."""

    def parts(self, distances_FNM: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Each kernel, and its factor in the derivatives by log length scales: (G, N, M) both."""
        scaled = self.members_GF / self.lengths_F**2
        r = np.sqrt(np.maximum(np.tensordot(scaled, distances_FNM, axes=1), 0.0))
        decay = np.exp(-SQRT5 * r) * self.variances_G[:, None, None]
        return (1 + SQRT5 * r + 5 / 3 * r**2) * decay, 5 / 3 * (1 + SQRT5 * r) * decay

    def __call__(self, distances_FNM: FloatArray) -> FloatArray:
        return np.asarray(self.parts(distances_FNM)[0].sum(0), np.float64)


class GaussianProcess:
    """The default model."""

    def __init__(self, features: Features, priors: Priors = Priors()) -> None:
        self._features, self._priors = features, priors
        groups = sorted({feature.group for feature in features.features})
        own = [[float(feature.group == group) for feature in features.features] for group in groups]
        whole = [1.0] * len(features.features)
        self._members_GF = np.array([whole] if len(groups) < 2 else [whole, *own])

    def fit(
        self, configs: Sequence[TrialConfig], qualities: Sequence[float], variances: Sequence[float] = ()
    ) -> FittedProcess:
        """Takes at least one trial."""
        y_N, noise_N = np.array(qualities, np.float64), np.array(variances or [0.0] * len(qualities))
        kept = most_relevant(y_N)
        y_N, noise_N = y_N[kept], noise_N[kept]
        X_NK = self._features.encode([configs[i] for i in kept])
        centre, scale = float(y_N.mean()), float(y_N.std()) or 1.0
        targets, noise_N = (y_N - centre) / scale, noise_N / scale**2
        few = np.unique(np.linspace(0, len(kept) - 1, MOST_FITTED).astype(int))
        kernel = self._most_probable(X_NK[few], targets[few], noise_N[few])
        return FittedProcess.condition(
            kernel, self._features, X_NK, targets, noise_N + kernel.noise, centre=centre, scale=scale
        )

    def _most_probable(self, X_NK: FloatArray, y_N: FloatArray, noise_N: FloatArray) -> Kernel:
        distances = self._features.distances(X_NK, X_NK)
        means, spreads = self._prior_vectors()

        def loss(theta: FloatArray) -> tuple[float, FloatArray]:
            value, gradient = _negative_log_likelihood(self._kernel(theta), distances, y_N, noise_N)
            away = (theta - means) / spreads
            return value + 0.5 * float(away @ away), gradient + away / spreads

        bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(means, spreads, strict=True)]
        found = minimize(loss, means, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
        return self._kernel(np.asarray(found.x))

    def _prior_vectors(self) -> tuple[FloatArray, FloatArray]:
        num_groups, num_features = self._members_GF.shape
        pairs = [self._priors.length] * num_features + [self._priors.variance] * num_groups
        means, spreads = np.array([*pairs, self._priors.noise], np.float64).T
        return means, spreads

    def _kernel(self, theta: FloatArray) -> Kernel:
        num_features = self._members_GF.shape[1]
        values = np.exp(theta)
        return Kernel(values[:num_features], values[num_features:-1], float(values[-1]), self._members_GF)


def _negative_log_likelihood(
    kernel: Kernel, distances_FNN: FloatArray, y_N: FloatArray, noise_N: FloatArray
) -> tuple[float, FloatArray]:
    """And its gradient by the logarithms of length scales, variances and noise."""
    parts_GNN, slopes_GNN = kernel.parts(distances_FNN)
    lower = _cholesky(parts_GNN.sum(0) + np.diag(noise_N + kernel.noise))
    alpha = cho_solve((lower, True), y_N)
    value = 0.5 * float(y_N @ alpha) + float(np.log(np.diag(lower)).sum())
    weight = cho_solve((lower, True), np.eye(len(y_N))) - np.outer(alpha, alpha)
    pull_GF = np.einsum("gnm,fnm->gf", slopes_GNN * weight, distances_FNN, optimize=True)
    by_length = 0.5 * (pull_GF * kernel.members_GF).sum(0) / kernel.lengths_F**2
    by_variance = 0.5 * (parts_GNN * weight).sum((1, 2))
    by_noise = 0.5 * kernel.noise * float(np.trace(weight))
    return value, np.concatenate([by_length, by_variance, [by_noise]])


def _cholesky(matrix: FloatArray) -> FloatArray:
    """Lower factor; what rounding made indefinite is lifted until it has one."""
    size = float(np.diag(matrix).mean())
    for lift in (0.0, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2):
        try:
            return np.asarray(cholesky(matrix + lift * size * np.eye(len(matrix)), lower=True), np.float64)
        except LinAlgError:
            continue
    return np.diag(np.sqrt(np.maximum(np.diag(matrix), 1e-12)))  # as if the trials had nothing in common


@dataclass(frozen=True)
class FittedProcess:
    """Conditioned on trials."""

    kernel: Kernel
    features: Features
    X_NK: FloatArray
    targets_N: FloatArray
    noise_N: FloatArray
    lower_NN: FloatArray
    centre: float
    scale: float

    @classmethod
    def condition(
        cls,
        kernel: Kernel,
        features: Features,
        X_NK: FloatArray,
        targets_N: FloatArray,
        noise_N: FloatArray,
        *,
        centre: float,
        scale: float,
    ) -> FittedProcess:
        """Of given length scales."""
        lower = _cholesky(kernel(features.distances(X_NK, X_NK)) + np.diag(noise_N))
        return cls(kernel, features, X_NK, targets_N, noise_N, lower, centre, scale)

    def predict(self, configs: Sequence[TrialConfig]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation without noise."""
        mean, sd = self._standardised(self.features.encode(configs))
        return self.centre + self.scale * mean, self.scale * sd

    def believing(self, configs: Sequence[TrialConfig]) -> FittedProcess:
        """The means stay where they are; around these configurations nothing is left to learn."""
        if not configs:
            return self
        X_MK = self.features.encode(configs)
        mean_M, _ = self._standardised(X_MK)
        return self.condition(
            self.kernel,
            self.features,
            np.concatenate([self.X_NK, X_MK]),
            np.concatenate([self.targets_N, mean_M]),
            np.concatenate([self.noise_N, np.full(len(mean_M), self.kernel.noise)]),
            centre=self.centre,
            scale=self.scale,
        )

    def _standardised(self, X_MK: FloatArray) -> tuple[FloatArray, FloatArray]:
        cross_NM = self.kernel(self.features.distances(self.X_NK, X_MK))
        mean = cross_NM.T @ cho_solve((self.lower_NN, True), self.targets_N)
        explained = (solve_triangular(self.lower_NN, cross_NM, lower=True) ** 2).sum(0)
        return mean, np.sqrt(np.maximum(self.kernel.variances_G.sum() - explained, 1e-12))


def most_relevant(qualities_N: FloatArray) -> npt.NDArray[np.intp]:
    """Positions of the trials to keep, in order: half of them the best ones, half in equal steps."""
    count = len(qualities_N)
    if count <= MOST_TRIALS:
        return np.arange(count)
    best = np.argsort(-qualities_N, kind="stable")[: MOST_TRIALS // 2]
    others = np.setdiff1d(np.arange(count), best)
    steps = np.linspace(0, len(others) - 1, MOST_TRIALS - len(best)).astype(int)
    return np.sort(np.concatenate([best, others[steps]]))


def gaussian_process(plan: Plan) -> QualityModel:
    """Over all that the study searches."""
    return GaussianProcess(Features.of(plan))
