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

from kdsearch.core.pareto import Point, staircase
from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Suggests, encode
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

    def __init__(self, known: Known, plan: Plan, keys: Mapping[int, str] | None = None) -> None:
        """``keys``: of configurations, by trial number, where they are at hand."""
        alive = [tried for tried in known.tried if tried.state != "failed"]
        found = keys or {}
        self._taken = {found.get(tried.number) or tried.config.key for tried in alive}
        self._points = points_of(known)
        self._latency_ms = known.latency_ms
        limit = plan.spec.constraints.latency_ms
        self.ceiling_ms = math.inf if limit is None else limit.max

    def why(self, config: TrialConfig) -> Reason | None:
        """Why it is refused; None if it is not."""
        if config.key in self._taken:
            return "duplicate"
        latency_ms = self._latency_ms(config)
        if latency_ms is None:
            return None
        if latency_ms > self.ceiling_ms:
            return "latency"
        return "front" if staircase(self._points, latency_ms) >= PERFECT else None

    def accepts(self, config: TrialConfig) -> bool:
        """Whether it may become a trial."""
        return self.why(config) is None


def points_of(known: Known) -> list[Point]:
    """(quality, latency) of the complete trials."""
    return [
        (tried.quality, tried.latency_ms)
        for tried in known.tried
        if tried.state == "complete" and tried.quality is not None and tried.latency_ms is not None
    ]


# ---------------------------------------------------------------- ways of drawing


class _Draw:
    """What a search space asks for, answered from distributions; some values are fixed."""

    def __init__(self, fixed: Mapping[str, Stored]) -> None:
        self._fixed = fixed

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> Any:
        return self._suggest(name, FloatDistribution(low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> Any:
        return self._suggest(name, IntDistribution(low, high, step=step, log=log))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        return self._fixed[name] if name in self._fixed else self._draw(name, distribution)

    def _draw(self, name: str, distribution: BaseDistribution) -> Any:
        raise NotImplementedError


class Sampled(_Draw):
    """As `optuna.trial.Trial` would ask a sampler, without writing any value.

    A fresh draft asks the sampler for a fresh joint sample, the first time that a value needs one.
    """

    def __init__(
        self, study: Study, trial: FrozenTrial, sampler: BaseSampler, fixed: Mapping[str, Stored]
    ) -> None:
        super().__init__(fixed)
        self._study, self._trial, self._sampler = study, trial, sampler
        self._space: dict[str, BaseDistribution] = {}
        self._relative: dict[str, Any] | None = None

    def _draw(self, name: str, distribution: BaseDistribution) -> Any:
        if distribution.single():
            return _options(distribution)[0]
        if self._relative is None:
            self._space = self._sampler.infer_relative_search_space(self._study, self._trial)
            self._relative = self._sampler.sample_relative(self._study, self._trial, self._space)
        value = self._relative.get(name)
        if name in self._relative and distribution._contains(distribution.to_internal_repr(value)):
            return value
        return self._sampler.sample_independent(self._study, self._trial, name, distribution)


class Chance(_Draw):
    """Each value uniform over its own range, or over the logarithm of it."""

    def __init__(self, rng: np.random.Generator, fixed: Mapping[str, Stored]) -> None:
        super().__init__(fixed)
        self._rng = rng

    def _draw(self, name: str, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, IntDistribution) and distribution.log:
            low, high = math.log(distribution.low - 0.5), math.log(distribution.high + 0.5)
            drawn = round(math.exp(self._rng.uniform(low, high)))
            return min(max(drawn, distribution.low), distribution.high)
        if _is_continuous(distribution):
            return _between(distribution, self._rng.random())
        options = _options(distribution)
        return options[int(self._rng.integers(len(options)))]


class _Counted(Chance):
    """Follows a path of decisions; where it ends, the first option each. What is continuous is drawn."""

    def __init__(self, rng: np.random.Generator, fixed: Mapping[str, Stored], path: Sequence[int]) -> None:
        super().__init__(rng, fixed)
        self.path, self.counts = list(path), list[int]()

    def _draw(self, name: str, distribution: BaseDistribution) -> Any:
        if _is_continuous(distribution):
            return super()._draw(name, distribution)
        options, depth = _options(distribution), len(self.counts)
        self.counts.append(len(options))
        if depth == len(self.path):
            self.path.append(0)
        return options[self.path[depth]]

    def following(self) -> list[int] | None:
        """The path after this one; None after the last."""
        path = list(self.path)
        while path and path[-1] + 1 == self.counts[len(path) - 1]:
            path.pop()
        if not path:
            return None
        path[-1] += 1
        return path


def _is_continuous(distribution: BaseDistribution) -> bool:
    return (
        isinstance(distribution, FloatDistribution)
        and distribution.step is None
        and not distribution.single()
    )


def _between(distribution: BaseDistribution, share: float) -> float:
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** share if distribution.log else low + (high - low) * share
    return min(max(value, low), high)


def _options(distribution: BaseDistribution) -> Sequence[Any]:
    """Every value of a distribution that is not continuous."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        return (distribution.low,)
    steps = int((distribution.high - distribution.low) / distribution.step + 1e-8)
    return [distribution.low + i * distribution.step for i in range(steps + 1)]


# ---------------------------------------------------------------- drawing


def by_chance(plan: Plan, rng: np.random.Generator, fixed: Mapping[str, Stored] | None = None) -> TrialConfig:
    """A configuration at random, whatever it is."""
    return plan.suggest(_suggests(Chance(rng, fixed or {})))


def combinations(
    plan: Plan, rng: np.random.Generator, fixed: Mapping[str, Stored] | None = None
) -> Iterator[TrialConfig]:
    """Every combination of what is discrete, once each; continuous values are at random."""
    path: list[int] | None = []
    while path is not None:
        draw = _Counted(rng, fixed or {}, path)
        yield plan.suggest(_suggests(draw))
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
        config = plan.suggest(_suggests(Sampled(study, trial, sampler, fixed)))
        if accepts(config):
            return config
    return spare(plan, accepts, rng, fixed)


def _by_chance(
    plan: Plan, accepts: Accepts, rng: np.random.Generator, fixed: Mapping[str, Stored] | None, times: int
) -> TrialConfig | None:
    drawn = (by_chance(plan, rng, fixed) for _ in range(times))
    return next((config for config in drawn if accepts(config)), None)


def _suggests(draw: _Draw) -> Suggests:
    return draw


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
