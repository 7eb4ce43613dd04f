"""Quasi-Monte Carlo: a scrambled Sobol sequence over every parameter that the study searches.

Optuna infers the space from the first trial alone, which in a conditional space lacks what other students
and schemes have. Here each parameter has a coordinate of its own, used where the parameter exists.
"""

from __future__ import annotations

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, QMCSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from kdsearch.search.samplers.base import SamplerSetup
from kdsearch.search.union import distributions


class _WholeSpace(QMCSampler):
    """Over the union of all that any trial may have."""

    def __init__(self, setup: SamplerSetup) -> None:
        # One sequence for the whole study: its place in it is kept by Optuna.
        super().__init__(scramble=True, seed=setup.study_seed, warn_independent_sampling=False)
        self._union = distributions(setup.plan)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._union


def qmc(setup: SamplerSetup) -> BaseSampler:
    """The next point of the sequence."""
    return _WholeSpace(setup)
