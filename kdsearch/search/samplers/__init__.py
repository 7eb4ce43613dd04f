"""The samplers by their YAML name: a further one is one file here and one entry below."""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import BaseSampler

from kdsearch.search.samplers.random import random
from kdsearch.search.samplers.tpe import tpe

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": tpe,
    "random": random,
}
"""From a seed to a sampler."""
