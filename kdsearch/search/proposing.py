"""What to try next where latency is known before training: the largest expected growth of the front.

A pure function of what is known. One model forecasts the quality of a configuration; its latency is a figure
or modelled with its uncertainty; the expected hypervolume improvement over the front's staircase is exact for
each latency, and averaged over those that it may have. Trials under way count as if they had turned out as
forecast, so that two workers do not try the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from kdsearch.core.pareto import Point, expected_improvement, front
from kdsearch.core.records import TrialConfig, Tried
from kdsearch.core.space import Range, encode
from kdsearch.search.drawing import Refusals, Stored, by_chance, measured, points_of
from kdsearch.search.features import Feature, Features, FloatArray
from kdsearch.search.forecast import Forecaster
from kdsearch.search.known import Known
from kdsearch.search.latencies import Latencies
from kdsearch.search.plan import Plan
from kdsearch.search.surrogate import MakeModel, gaussian_process

NUM_STARTUP_TRIALS = 10
"""Observations before the model has a say; the stratified first trials are among them."""
MIN_FORECAST = 5
"""Complete trials that the forecast of an unfinished one needs; less than a decision to pause: it may err."""
BEYOND = 2.0
"""Without a ceiling, latencies up to this multiple of the slowest measured one count."""
OUTLIER = 4.0
"""Interquartile ranges below the median beyond which a quality is just bad, and does not bend the model."""
NODES = 7
NUM_RANDOM, NUM_NEAR, NUM_REFINED = 300, 200, 100
NUM_BEST = 5
NEAR = 0.1
"""Standard deviation of a small step, as a share of a parameter's range."""


class Outlook:
    """What the models make of what is known; of one question."""

    def __init__(self, known: Known, plan: Plan, make_model: MakeModel = gaussian_process) -> None:
        self.known, self.plan = known, plan
        self.refusals = Refusals(known, plan)
        self.latencies = Latencies(known, plan)
        self.floor = known.quality_floor
        observed = list(observations(known.tried))
        self.num_observed = len(observed)
        if not observed:
            return
        qualities = _without_outliers(np.array([quality for _, quality, _ in observed]), self.floor)
        model = make_model(plan)
        fitted = model.fit([t.config for t, _, _ in observed], list(qualities), [v for _, _, v in observed])
        seen = {tried.number for tried, _, _ in observed}
        under_way = [t for t in known.tried if t.state in ("running", "waiting")]
        self._fitted = fitted.believing([t.config for t in under_way if t.number not in seen])
        points = [*points_of(known), *self._believed([t.config for t in under_way])]
        self._points = [points[i] for i in front(points)]

    def scores(self, configs: Sequence[TrialConfig]) -> FloatArray:
        """Expected hypervolume improvement of each; minus infinity for what is refused."""
        if not configs:
            return np.zeros(0)
        accepted = np.array([self.refusals.accepts(config) for config in configs])
        mean, sd = self._fitted.predict(configs)
        log_ms, log_sd = self.latencies.predict(configs)
        reference = (self.floor, self._worst_ms(log_ms))
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        area = np.zeros(len(configs))
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            area += weight * expected_improvement(
                self._points, mean=mean, sd=sd, latency_ms=np.exp(log_ms + node * log_sd), reference=reference
            )
        return np.where(accepted, area, -np.inf)

    def parents(self) -> list[TrialConfig]:
        """Of the front, and of the best trials by quality: worth a look around."""
        done = measured(self.known)
        leading = [done[i] for i in front(points_of(self.known))]
        ranked = sorted(done, key=lambda t: (-(t.quality or 0.0), t.number))
        return [t.config for t in {t.number: t for t in [*leading, *ranked[:NUM_BEST]]}.values()]

    def _believed(self, configs: Sequence[TrialConfig]) -> list[Point]:
        if not configs:
            return []
        mean, _ = self._fitted.predict(configs)
        log_ms, _ = self.latencies.predict(configs)
        return [(float(q), math.exp(ms)) for q, ms in zip(mean, log_ms, strict=True)]

    def _worst_ms(self, log_ms: FloatArray) -> float:
        if self.refusals.ceiling_ms < math.inf:
            return self.refusals.ceiling_ms
        slowest = self.latencies.slowest_ms or float(np.exp(log_ms.max()))
        return BEYOND * slowest


def propose(
    known: Known,
    candidates: Sequence[TrialConfig],
    *,
    plan: Plan,
    rng: np.random.Generator,
    make_model: MakeModel = gaussian_process,
) -> TrialConfig | None:
    """The best of the candidates, at random before there is anything to learn from; None if all are vain."""
    outlook = Outlook(known, plan, make_model)
    if outlook.num_observed < NUM_STARTUP_TRIALS:
        left = [config for config in candidates if outlook.refusals.accepts(config)]
        return left[int(rng.integers(len(left)))] if left else None
    return best(candidates, outlook.scores(candidates), rng)


def best(
    candidates: Sequence[TrialConfig], scores: FloatArray, rng: np.random.Generator
) -> TrialConfig | None:
    """A candidate of the highest score, at random among equal ones; None if all are refused."""
    if not len(scores) or scores.max() == -np.inf:
        return None
    ties = np.flatnonzero(scores == scores.max())
    return candidates[int(rng.choice(ties))]


def look_around(
    outlook: Outlook, rng: np.random.Generator, fixed: Mapping[str, Stored] | None = None
) -> TrialConfig | None:
    """The best that can be found: at random and near good trials, then near the best of those."""
    plan, chosen = outlook.plan, dict(fixed or {})
    near = neighbours(plan, rng, chosen)
    candidates = [by_chance(plan, rng, chosen) for _ in range(NUM_RANDOM)]
    parents = outlook.parents()
    if parents:
        candidates += [near(parents[i % len(parents)]) for i in range(NUM_NEAR)]
    scores = outlook.scores(candidates)
    leading = np.argsort(-scores, kind="stable")[:NUM_BEST]
    further = [near(candidates[leading[i % len(leading)]]) for i in range(NUM_REFINED)]
    return best([*candidates, *further], np.concatenate([scores, outlook.scores(further)]), rng)


def neighbours(
    plan: Plan, rng: np.random.Generator, fixed: Mapping[str, Stored]
) -> Callable[[TrialConfig], TrialConfig]:
    """From a configuration to one like it: one to three values are another, numbers often by a small step."""
    features = {feature.name: feature for feature in Features.of(plan).features}

    def near(parent: TrialConfig) -> TrialConfig:
        kept = {name: encode(value) for name, value in parent.params.items()}
        movable = [name for name in kept if name in features and name not in fixed]
        if not movable:
            return parent
        count = min(len(movable), int(rng.integers(1, 4)))
        for name in rng.choice(np.array(movable), count, replace=False):
            moved = _step(features[name], parent, rng) if rng.random() < 0.5 else None
            if moved is None:
                kept.pop(name)
            else:
                kept[name] = moved
        return by_chance(plan, rng, {**kept, **fixed})

    return near


def _step(feature: Feature, parent: TrialConfig, rng: np.random.Generator) -> Stored | None:
    """A continuous value a little to the side; None for any other kind."""
    span = feature.dimension
    if not isinstance(span, Range) or span.integer or span.step is not None:
        return None
    share = feature.share(parent.params[feature.name]) + NEAR * float(rng.standard_normal())
    share = min(max(share, 0.0), 1.0)
    value = (
        span.low * (span.high / span.low) ** share if span.log else span.low + share * (span.high - span.low)
    )
    return min(max(value, span.low), span.high)


# ---------------------------------------------------------------- observations


def observations(tried: Sequence[Tried]) -> Iterator[tuple[Tried, float, float]]:
    """(trial, final quality, its variance): as it ended, or as is forecast where it has not.

    Trials that wait at a rung are those that others overtook there, and end unlike them: so the forecast is
    a regression on what they were judged by, and half of what it says they will still gain is in its spread.
    """
    forecasters: dict[int, Forecaster | None] = {}
    for trial in tried:
        if trial.state == "complete" and trial.quality is not None:
            yield trial, trial.quality, 0.0
        elif trial.qualities and trial.state in ("stopped", "paused", "running", "waiting"):
            epoch = max(trial.qualities)
            if epoch not in forecasters:
                forecasters[epoch] = Forecaster.of(tried, epoch, at_least=MIN_FORECAST)
            forecaster = forecasters[epoch]
            if forecaster is not None:
                forecast = forecaster.forecast(trial)
                final = min(forecast.mean, 1.0)
                to_come = final - max(trial.qualities.values())
                yield trial, final, forecast.sd**2 + (to_come / 2) ** 2


def _without_outliers(qualities: FloatArray, floor: float) -> FloatArray:
    low, middle, high = np.quantile(qualities, (0.25, 0.5, 0.75))
    return np.maximum(qualities, max(middle - OUTLIER * (high - low), min(floor, middle)))
