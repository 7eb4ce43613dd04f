"""Tree-structured Parzen estimator, multi-objective form (Ozaki et al. 2022).

Parameters are sampled one by one: Optuna measured its joint form as worse with several objectives.
Trials that run elsewhere count as bad (constant liar), so that two workers do not try the same; so do
stopped ones, whose quality it has no use for.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from kdsearch.search.samplers.base import SamplerSetup

NUM_STARTUP_TRIALS = 10
"""Random trials first; the stratified first trials count among them."""


def tpe(setup: SamplerSetup) -> BaseSampler:
    """Trials beyond a constraint rank last, by how far they are beyond it."""
    return TPESampler(seed=setup.seed, n_startup_trials=NUM_STARTUP_TRIALS, constant_liar=True)
