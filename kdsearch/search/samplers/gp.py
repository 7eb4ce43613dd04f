"""Optuna's Gaussian processes, one per objective: latency is modelled as if it were not known.

Only parameters that every trial has are modelled (student, scheme, learning rate, batch size); the others are
at random. Trials that run count as pending; stopped ones are ignored.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from kdsearch.search.samplers.base import SamplerSetup

NUM_STARTUP_TRIALS = 10
"""Random trials first; the stratified first trials count among them."""


def gp(setup: SamplerSetup) -> BaseSampler:
    """Logarithm of the expected hypervolume improvement, by quasi-Monte Carlo."""
    return GPSampler(seed=setup.seed, n_startup_trials=NUM_STARTUP_TRIALS, warn_independent_sampling=False)
