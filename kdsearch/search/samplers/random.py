"""Uniform random search: the control among samplers."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler


def random(seed: int) -> BaseSampler:
    """Each parameter drawn from its own range."""
    return RandomSampler(seed=seed)
