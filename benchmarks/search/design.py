"""The design: configurations drawn at random from a study's space, the same ones for every data set.

Draw i is decided by the seed and i alone, so that a larger design begins with every smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from benchmarks.arms import Spec, derived, shrunk
from kdsearch.core.records import TrialConfig, Values
from kdsearch.search.plan import Plan
from kdsearch.students import STUDENTS

SEED = 2026
SEEDS = (17, 18)
"""Of the trainings of each configuration."""
DATA: dict[str, dict[str, Any]] = {
    "sst2": {},
    "yelp": {
        "data.train": {"path": "${KDSEARCH_DATA}/yelp_sentences/train.jsonl", "limit": 2000},
        "data.validation": {"path": "${KDSEARCH_DATA}/yelp_sentences/validation.jsonl", "limit": 1000},
    },
}
"""What changes of `studies/search_table.yaml` for each data set."""
STUDY = "search_table"
Architecture: TypeAlias = tuple[str, Values]
"""A student, and those of its parameters that its latency hangs on, by name."""


@dataclass(frozen=True)
class Draw:
    """Stands for an Optuna trial: every parameter is drawn from its whole range, evenly on its scale."""

    rng: np.random.Generator

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> object:
        """One of them."""
        return choices[int(self.rng.integers(len(choices)))]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """Between the ends, or one of the steps from the lower one."""
        if step is not None:
            return low + step * int(self.rng.integers(round((high - low) / step) + 1))
        if log:
            return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        return float(self.rng.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """One of the steps from the lower end."""
        if log:
            return min(high, int(np.exp(self.rng.uniform(np.log(low), np.log(high + 1)))))
        return low + step * int(self.rng.integers((high - low) // step + 1))


def configurations(plan: Plan, count: int, *, seed: int = SEED) -> tuple[TrialConfig, ...]:
    """The first so many different configurations, with the study's own seed."""
    return tuple(islice(_different(plan, seed), count))


def _different(plan: Plan, seed: int) -> Iterator[TrialConfig]:
    seen: set[str] = set()
    number = 0
    while True:
        config = plan.suggest(Draw(np.random.default_rng([seed, number])))
        number += 1
        if config.key not in seen:
            seen.add(config.key)
            yield config


def study_of(base: Spec, data: str) -> Spec:
    """The study that prepares a data set and whose space is drawn from; it runs one trial, the control."""
    return derived(base, data, {**DATA[data], "budget.trials": 1})


def shrunk_study(spec: Spec) -> Spec:
    """For a trial run of minutes: few rows, a teacher of no knowledge."""
    made = shrunk(spec)
    made["training"] = {**made["training"], "epochs": 3, "rows_per_epoch": 300}
    layers = made["teacher"]["build"]["layers"]
    for scheme in made["schemes"]:
        if isinstance(scheme, dict) and "layer" in scheme:
            scheme.update(layer=layers, hint_epochs=1)
    return made


def architecture_of(config: TrialConfig) -> Architecture:
    """What its latency hangs on, in whichever order its parameters come."""
    space = STUDENTS[config.student].SPACE
    told = [(key, value) for key, value in config.student_params.items() if space[key].architecture]
    return config.student, tuple(sorted(told, key=lambda pair: pair[0]))


def architecture_name(config: TrialConfig) -> str:
    """For people: the student with all that its latency hangs on, e.g. ``bag embed_dim=32 hidden=32``."""
    space = STUDENTS[config.student].SPACE
    told = [f"{key}={value}" for key, value in config.student_params.items() if space[key].architecture]
    return " ".join([config.student, *told])


def seeded(config: TrialConfig, seed: int) -> TrialConfig:
    """The same with another seed of training."""
    return replace(config, seed=seed)
