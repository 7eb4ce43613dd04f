"""NSGA-II (Deb et al. 2002): generations of parents and children.

Parameters that only some trials have are at random. Stopped trials are ignored.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler

from kdsearch.search.samplers.base import SamplerSetup

POPULATION = 20
"""Optuna's own 50 would leave most studies in their first generation, which is random."""


def nsga2(setup: SamplerSetup) -> BaseSampler:
    """Trials beyond a constraint are dominated by those within."""
    return NSGAIISampler(seed=setup.seed, population_size=POPULATION)
