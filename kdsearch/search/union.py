"""The union of a conditional space: every parameter that some trial may have, and what it may be there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kdsearch.core.space import Choice, Dimension, Space
from kdsearch.search.plan import Plan
from kdsearch.search.presets.recipe import dimensions_of
from kdsearch.search.spaces import TRAINING


def dimensions(plan: Plan) -> dict[str, Dimension]:
    """Every parameter by the name it has in `TrialConfig.params`, fixed ones too."""
    spaces, training = plan.spaces, plan.spec.training
    found: dict[str, Dimension] = {
        "student": Choice(tuple(plan.students)),
        "scheme": Choice(tuple(plan.schemes)),
    }
    for name, narrowed in plan.students.items():
        found |= _prefixed(name, spaces.students[name], narrowed)
    for name, narrowed in plan.schemes.items():
        found |= _prefixed(name, spaces.schemes[name], narrowed)
    return found | dimensions_of(TRAINING, {name: getattr(training, name) for name in TRAINING})


def distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """Of every parameter that Optuna hears of."""
    asked = _Asked()
    for name, dimension in dimensions(plan).items():
        dimension.suggest(asked, name)
    return {name: found for name, found in sorted(asked.found.items()) if not found.single()}


class _Asked:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.found: dict[str, BaseDistribution] = {}

    def suggest_categorical(
        self, name: str, choices: Sequence[CategoricalChoiceType]
    ) -> CategoricalChoiceType:
        self.found[name] = CategoricalDistribution(choices)
        return choices[0]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        self.found[name] = FloatDistribution(low, high, step=step, log=log)
        return low

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.found[name] = IntDistribution(low, high, step=step, log=log)
        return low


def _prefixed(prefix: str, space: Space, narrowed: Mapping[str, Dimension]) -> dict[str, Dimension]:
    return {f"{prefix}.{name}": found for name, found in dimensions_of(space, narrowed).items()}
