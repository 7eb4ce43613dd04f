"""Latency of what nobody has measured yet: a Gaussian process over the logarithms of measured figures.

Only what decides the latency counts, so figures are one per architecture. A measured architecture has its
figure and no doubt; far from all measured ones (a student that nobody timed) there is nothing but doubt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Scalar
from kdsearch.search.features import Features, FloatArray
from kdsearch.search.known import Known
from kdsearch.search.plan import Plan
from kdsearch.search.surrogate import FittedProcess, GaussianProcess, Priors

Architecture: TypeAlias = tuple[str, tuple[tuple[str, Scalar], ...]]
PRIORS = Priors(length=(math.log(2.0), 1.0), noise=(math.log(0.003), 1.0))
"""Smooth, and figures repeat well."""
BLIND_SD = 1.0
"""Of the logarithm, where fewer than two architectures were measured: a factor of 2.7 either way."""


def architecture(plan: Plan, config: TrialConfig) -> Architecture:
    """What the latency depends on: figures are shared by all that have it in common."""
    space = plan.spaces.students[config.student]
    deciding = ((n, v) for n, v in config.student_params.items() if n in space and space[n].architecture)
    return config.student, tuple(sorted(deciding))


class Latencies:
    """Of one question; each architecture is looked up once."""

    def __init__(self, known: Known, plan: Plan) -> None:
        self._plan, self._ask = plan, known.latency_ms
        self._figures: dict[Architecture, float | None] = {}
        self._measured: dict[Architecture, tuple[TrialConfig, float]] = {}
        self._model: FittedProcess | None = None
        for tried in known.tried:
            key = architecture(plan, tried.config)
            if key not in self._measured:
                figure = self.figure(tried.config) if tried.latency_ms is None else tried.latency_ms
                if figure is not None:
                    self._measured[key] = (tried.config, figure)

    @property
    def slowest_ms(self) -> float | None:
        """Of all measured students that were tried."""
        return max((figure for _, figure in self._measured.values()), default=None)

    def figure(self, config: TrialConfig) -> float | None:
        """As measured; None where it was not."""
        key = architecture(self._plan, config)
        if key in self._measured:
            return self._measured[key][1]
        if key not in self._figures:
            self._figures[key] = self._ask(config)
        return self._figures[key]

    def predict(self, configs: Sequence[TrialConfig]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the logarithm (of milliseconds); a measured one has no spread."""
        figures = [self.figure(config) for config in configs]
        mean = np.array([math.log(f) if f else 0.0 for f in figures])
        sd = np.zeros(len(mean))
        blank = [i for i, figure in enumerate(figures) if figure is None]
        if blank:
            mean[blank], sd[blank] = self._modelled([configs[i] for i in blank])
        return mean, sd

    def _modelled(self, configs: Sequence[TrialConfig]) -> tuple[FloatArray, FloatArray]:
        measured = list(self._measured.values())
        if len(measured) < 2:
            centre = math.log(measured[0][1]) if measured else 0.0
            return np.full(len(configs), centre), np.full(len(configs), BLIND_SD)
        if self._model is None:
            process = GaussianProcess(Features.of_architecture(self._plan), PRIORS)
            self._model = process.fit([c for c, _ in measured], [math.log(ms) for _, ms in measured])
        return self._model.predict(configs)
