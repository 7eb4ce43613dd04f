"""Uniform random search: the control among samplers."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from kdsearch.search.samplers.base import SamplerSetup


def random(setup: SamplerSetup) -> BaseSampler:
    """Each parameter drawn from its own range."""
    return RandomSampler(seed=setup.seed)
