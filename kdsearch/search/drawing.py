"""A whole configuration is drawn before anything of it is written, so that it can be refused and drawn again.

What is refused never becomes a trial: a configuration that was tried already, one whose latency is known
to lie above the ceiling, one that a perfect score could not put on the front.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from kdsearch.core.pareto import Point, front, staircase
from kdsearch.core.records import TrialConfig, Tried
from kdsearch.core.space import encode
from kdsearch.search.known import Known
from kdsearch.search.plan import Plan

Accepts: TypeAlias = Callable[[TrialConfig], bool]
Stored: TypeAlias = bool | int | float | str
"""A value as Optuna keeps it."""
Reason: TypeAlias = Literal["duplicate", "latency", "front"]
PERFECT = 1.0
"""The best quality there is."""
SAMPLER_DRAWS = 5
"""How often the sampler is asked before chance decides: it may insist on one place."""
RANDOM_DRAWS = 200
MOST_COMBINATIONS = 4000
FURTHER_DRAWS = 2000


class Refusals:
    """What needs no trial to be known as vain; of one question."""

    def __init__(self, known: Known, plan: Plan) -> None:
        self._taken = {tried.config.identity for tried in known.tried if tried.state != "failed"}
        points = points_of(known)
        self._points = [points[i] for i in front(points)]  # the staircase of all is that of the front
        self._latency_ms = known.latency_ms
        limit = plan.spec.constraints.latency_ms
        self.ceiling_ms = math.inf if limit is None else limit.max

    def why(self, config: TrialConfig) -> Reason | None:
        """Why it is refused; None if it is not."""
        if config.identity in self._taken:
            return "duplicate"
        latency_ms = self._latency_ms(config)
        if latency_ms is None:
            return None
        if latency_ms > self.ceiling_ms:
            return "latency"
        return "front" if staircase(self._points, latency_ms) >= PERFECT else None

    def is_new(self, config: TrialConfig) -> bool:
        """Whether it was not tried yet: all that counts where a person asked for it."""
        return config.identity not in self._taken

    def accepts(self, config: TrialConfig) -> bool:
        """Whether it may become a trial."""
        return self.why(config) is None


def measured(known: Known) -> list[Tried]:
    """The complete trials whose quality and latency are on record."""
    return [
        tried
        for tried in known.tried
        if tried.state == "complete" and tried.quality is not None and tried.latency_ms is not None
    ]


def points_of(known: Known) -> list[Point]:
    """(quality, latency) of each of them."""
    return [(tried.quality or 0.0, tried.latency_ms or 0.0) for tried in measured(known)]


def fixed_in(trial: FrozenTrial) -> dict[str, Stored]:
    """What its author fixed when it was enqueued, and what was written before somebody died."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


# ---------------------------------------------------------------- ways of drawing


class Sampled:
    """As `optuna.trial.Trial` would ask a sampler, without writing any value.

    A fresh draft asks the sampler for a fresh joint sample, the first time that a value needs one.
    """

    def __init__(
        self, study: Study, trial: FrozenTrial, sampler: BaseSampler, fixed: Mapping[str, Stored]
    ) -> None:
        self._study, self._trial, self._sampler, self._fixed = study, trial, sampler, fixed
        self._relative: dict[str, Any] | None = None

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> Any:
        return self._suggest(name, FloatDistribution(low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> Any:
        return self._suggest(name, IntDistribution(low, high, step=step, log=log))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._fixed:
            return self._fixed[name]
        if distribution.single():
            return _only(distribution)
        if self._relative is None:
            space = self._sampler.infer_relative_search_space(self._study, self._trial)
            self._relative = self._sampler.sample_relative(self._study, self._trial, space)
        if name in self._relative:
            value = self._relative[name]
            if distribution._contains(distribution.to_internal_repr(value)):
                return value
        return self._sampler.sample_independent(self._study, self._trial, name, distribution)


def _only(distribution: BaseDistribution) -> Any:
    """The value of a distribution that has one alone."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low


class Chance:
    """Each value uniform over its own range, or over the logarithm of it."""

    def __init__(self, rng: np.random.Generator, fixed: Mapping[str, Stored]) -> None:
        self._rng, self._fixed = rng, fixed

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        return self._fixed[name] if name in self._fixed else self._one_of(choices)

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> Any:
        if name in self._fixed:
            return self._fixed[name]
        if step is not None:
            return self._one_of([low + i * step for i in range(int((high - low) / step + 1e-8) + 1)])
        return low if low == high else self._between(low, high, log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> Any:
        return self._fixed[name] if name in self._fixed else self._whole(low, high, step, log)

    def _one_of(self, options: Sequence[Any]) -> Any:
        return options[int(self._rng.random() * len(options))]

    def _whole(self, low: int, high: int, step: int, log: bool) -> int:
        if log:
            return min(max(round(self._between(low - 0.5, high + 0.5, log)), low), high)
        return int(self._one_of(range(low, high + 1, step)))

    def _between(self, low: float, high: float, log: bool) -> float:
        share = self._rng.random()
        value = low * (high / low) ** share if log else low + (high - low) * share
        return min(max(value, low), high)


class _Counted(Chance):
    """Follows a path of decisions; where it ends, the first option each. What is continuous is drawn."""

    def __init__(self, rng: np.random.Generator, fixed: Mapping[str, Stored], path: Sequence[int]) -> None:
        super().__init__(rng, fixed)
        self.path, self.counts = list(path), list[int]()

    def _one_of(self, options: Sequence[Any]) -> Any:
        depth = len(self.counts)
        self.counts.append(len(options))
        if depth == len(self.path):
            self.path.append(0)
        return options[self.path[depth]]

    def _whole(self, low: int, high: int, step: int, log: bool) -> int:
        return int(self._one_of(range(low, high + 1, step)))

    def following(self) -> list[int] | None:
        """The path after this one; None after the last."""
        path = list(self.path)
        while path and path[-1] + 1 == self.counts[len(path) - 1]:
            path.pop()
        if not path:
            return None
        path[-1] += 1
        return path


# ---------------------------------------------------------------- drawing


def by_chance(plan: Plan, rng: np.random.Generator, fixed: Mapping[str, Stored] | None = None) -> TrialConfig:
    """A configuration at random, whatever it is."""
    return plan.suggest(Chance(rng, fixed or {}))


def combinations(
    plan: Plan, rng: np.random.Generator, fixed: Mapping[str, Stored] | None = None
) -> Iterator[TrialConfig]:
    """Every combination of what is discrete, once each; continuous values are at random."""
    path: list[int] | None = []
    while path is not None:
        draw = _Counted(rng, fixed or {}, path)
        yield plan.suggest(draw)
        path = draw.following()


def spare(
    plan: Plan, accepts: Accepts, rng: np.random.Generator, fixed: Mapping[str, Stored] | None = None
) -> TrialConfig | None:
    """A configuration that is accepted, at random; None if there is none left.

    Where chance finds none every combination is looked at, unless there are too many of them: then more
    chances decide.
    """
    found = _by_chance(plan, accepts, rng, fixed, RANDOM_DRAWS)
    if found is not None:
        return found
    every = combinations(plan, rng, fixed)
    left = [config for config in islice(every, MOST_COMBINATIONS) if accepts(config)]
    if left:
        return left[int(rng.integers(len(left)))]
    unseen = next(every, None) is not None
    return _by_chance(plan, accepts, rng, fixed, FURTHER_DRAWS) if unseen else None


def draw(
    plan: Plan,
    sampler: BaseSampler,
    study: Study,
    trial: FrozenTrial,
    accepts: Accepts,
    rng: np.random.Generator,
    fixed: Mapping[str, Stored],
) -> TrialConfig | None:
    """What the sampler proposes, drawn again while it is refused; then by chance; None if nothing is left."""
    for _ in range(SAMPLER_DRAWS):
        config = plan.suggest(Sampled(study, trial, sampler, fixed))
        if accepts(config):
            return config
    return spare(plan, accepts, rng, fixed)


def _by_chance(
    plan: Plan, accepts: Accepts, rng: np.random.Generator, fixed: Mapping[str, Stored] | None, times: int
) -> TrialConfig | None:
    drawn = (by_chance(plan, rng, fixed) for _ in range(times))
    return next((config for config in drawn if accepts(config)), None)


class Decided(BaseSampler):
    """Proposes what was decided already, so that Optuna writes it as its own."""

    def __init__(self, config: TrialConfig) -> None:
        self._params = {name: encode(value) for name, value in config.params.items()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled together: everything was."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value that the configuration has."""
        return self._params[param_name]
