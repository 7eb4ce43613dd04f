"""What is proposed where latency is known: better than chance, never in vain, and never the same twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from kdsearch.core.pareto import hypervolume
from kdsearch.core.records import TrialConfig, TrialState, Tried
from kdsearch.core.spec import Ceiling, ConstraintsSpec, SearchSpec, StudySpec
from kdsearch.core.specdata import DataSpec, SourceSpec
from kdsearch.core.specteacher import TeacherSpec
from kdsearch.search.drawing import (
    Refusals,
    by_chance,
    combinations,
    spare,
)
from kdsearch.search.known import Known
from kdsearch.search.latencies import Latencies, architecture
from kdsearch.search.plan import Plan
from kdsearch.search.proposing import Outlook, look_around, observations, propose
from kdsearch.search.spaces import Spaces

FLOOR = 0.5
SLOWEST = 3.0


def plan_of(spaces: Spaces, *, ceiling: float | None = None) -> Plan:
    source = SourceSpec(path="x")
    limit = ConstraintsSpec(latency_ms=None if ceiling is None else Ceiling(max=ceiling))
    data = DataSpec(train=source, validation=source)
    return Plan(
        StudySpec(
            version=1,
            name="s",
            data=data,
            teacher=TeacherSpec(model="m"),
            constraints=limit,
            search=SearchSpec(sampler="known_latency"),
        ),
        spaces,
    )


@pytest.fixture
def plan(spaces: Spaces) -> Plan:
    return plan_of(spaces)


@pytest.fixture
def finite(plan: Plan) -> Plan:
    """A space of a few hundred configurations."""
    from kdsearch.core.space import Choice, Fixed
    from kdsearch.core.spec import VariantSpec

    textcnn = VariantSpec(type="textcnn", params={"dropout": Choice((0.0, 0.2))})
    bilstm = VariantSpec(type="bilstm", params={"hidden": Fixed(64), "pooling": Fixed("max")})
    training = plan.spec.training.model_copy(update={"learning_rate": Choice((1e-3, 3e-3))})
    schemes = (VariantSpec(type="none"),)
    update = {"students": (textcnn, bilstm), "schemes": schemes, "training": training}
    return Plan(plan.spec.model_copy(update=update), plan.spaces)


def latency(config: TrialConfig) -> float:
    """Of its architecture: a wide student is slow."""
    p = config.student_params
    if config.student == "textcnn":
        return 0.002 * float(p["filters"]) * (1 + 0.2 * (p["kernel_sizes"] == (3, 4, 5)))  # type: ignore[arg-type]
    return 1.0 + 1.5 * float(p["ratio"])  # type: ignore[arg-type]


def quality(config: TrialConfig) -> float:
    """Slow students are a little better, most of all where rate and distillation suit them."""
    p, s = config.student_params, config.scheme_params
    found = 0.8 + 0.03 * math.log(latency(config) + 1)
    found -= 0.02 * (math.log(config.learning_rate) + (7.5 if config.student == "textcnn" else 6.2)) ** 2
    if "dropout" in p:
        found -= 0.1 * (float(p["dropout"]) - 0.2) ** 2  # type: ignore[arg-type]
    if config.scheme == "offline":
        heat = float(s.get("temperature", 16.0))  # type: ignore[arg-type]
        found += 0.05 * float(s["lambda"]) * (1 - 0.4 * abs(math.log(heat / 4)))  # type: ignore[arg-type]
    return max(found, 0.3)


def done(number: int, config: TrialConfig, *, state: TrialState = "complete", noise: float = 0.0) -> Tried:
    value = quality(config) + noise if state == "complete" else None
    return Tried(
        number=number, config=config, state=state, latency_ms=latency(config), qualities={}, quality=value
    )


def known_of(
    configs: list[TrialConfig], figures: Callable[[TrialConfig], float | None] = latency, **more: float
) -> Known:
    tried = [done(i, config) for i, config in enumerate(configs)]
    return Known(tried=tried, latency_ms=figures, quality_floor=more.get("floor", FLOOR))


def drawn(plan: Plan, count: int, seed: int = 0) -> list[TrialConfig]:
    rng = np.random.default_rng(seed)
    return [by_chance(plan, rng) for _ in range(count)]


def area(configs: list[TrialConfig]) -> float:
    points = [(quality(c), math.log(latency(c))) for c in configs]
    return hypervolume(points, reference=(FLOOR, math.log(SLOWEST)))


def searched(
    plan: Plan, seed: int, *, trials: int = 40, figures: Callable[[TrialConfig], float] = latency
) -> float:
    """Regret of the front after a search in a table of random configurations."""
    table = drawn(plan, 300, seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table))
    tried = [table[i] for i in order[:10]]
    while len(tried) < trials:
        outcomes = [
            replace(done(i, c, noise=0.002 * float(rng.standard_normal())), latency_ms=figures(c))
            for i, c in enumerate(tried)
        ]
        known = Known(tried=outcomes, latency_ms=figures, quality_floor=FLOOR)
        chosen = propose(known, table, plan=plan, rng=rng)
        assert chosen is not None
        tried.append(chosen)
    return area(table) - area(tried)


def at_random(plan: Plan, seed: int, trials: int = 40) -> float:
    table = drawn(plan, 300, seed)
    order = np.random.default_rng(seed).permutation(len(table))
    return area(table) - area([table[i] for i in order[:trials]])


def test_it_beats_chance_clearly_and_wrong_latencies_cost(plan: Plan) -> None:
    def wrong(config: TrialConfig) -> float:
        return 3.0 / latency(config)

    seeds = range(20)
    chance = np.array([at_random(plan, seed) for seed in seeds])
    exact = np.array([searched(plan, seed, trials=25) for seed in seeds])  # with fewer trials, too
    assert exact.mean() < 0.5 * chance.mean()
    assert (exact < chance).mean() >= 0.8
    misled = np.array([searched(plan, seed, trials=25, figures=wrong) for seed in range(6)])
    assert misled.mean() > 1.5 * exact[:6].mean()


def test_pending_trials_are_not_proposed_again_nor_their_like(plan: Plan) -> None:
    configs = drawn(plan, 20)
    known = known_of(configs)
    first = look_around(Outlook(known, plan), np.random.default_rng(1))
    assert first is not None
    running = replace(done(20, first, state="running"), latency_ms=None)
    outlook = Outlook(replace(known, tried=[*known.tried, running]), plan)
    second = look_around(outlook, np.random.default_rng(1))
    assert second is not None
    assert second.identity != first.identity
    like = TrialConfig.from_json({**first.to_json(), "learning_rate": first.learning_rate * 1.01})
    before, after = Outlook(known, plan).scores([like])[0], outlook.scores([like])[0]
    assert after < 0.5 * before


def test_it_is_the_same_again_and_another_with_another_seed(plan: Plan) -> None:
    known = known_of(drawn(plan, 15))
    found = [look_around(Outlook(known, plan), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_what_is_too_slow_is_not_proposed(spaces: Spaces) -> None:
    plan = plan_of(spaces, ceiling=0.3)
    known = known_of(drawn(plan, 30))
    for seed in range(5):
        config = look_around(Outlook(known, plan), np.random.default_rng(seed))
        assert config is not None
        assert latency(config) <= 0.3
    slow = [config for config in drawn(plan, 60, seed=3) if latency(config) > 0.3]
    assert propose(known, slow, plan=plan, rng=np.random.default_rng(0)) is None


def test_nothing_to_learn_from_is_chance_and_nothing_left_is_none(plan: Plan) -> None:
    configs = drawn(plan, 5)
    known = known_of(configs)
    assert propose(known, configs, plan=plan, rng=np.random.default_rng(0)) is None
    more = drawn(plan, 20, seed=9)
    chosen = {
        config.identity
        for seed in range(12)
        if (config := propose(known, more, plan=plan, rng=np.random.default_rng(seed))) is not None
    }
    assert len(chosen) > 3
    assert propose(known, [], plan=plan, rng=np.random.default_rng(0)) is None


def test_a_student_below_the_floor_is_worth_less_than_its_speed(plan: Plan) -> None:
    configs = drawn(plan, 40)
    fast = [
        c for c in drawn(plan, 200, seed=4) if c.student == "textcnn" and c.student_params["filters"] == 64
    ]
    low, high = (Outlook(known_of(configs, floor=floor), plan).scores(fast).mean() for floor in (0.0, 0.84))
    assert high < 0.5 * low


# ---------------------------------------------------------------- latency


def test_a_figure_has_no_doubt_and_what_nobody_timed_has_much(plan: Plan) -> None:
    configs = [c for c in drawn(plan, 60) if c.student == "textcnn"]
    narrow = [c for c in configs if c.student_params["filters"] == 64]
    known = Known(tried=[done(i, c) for i, c in enumerate(narrow)])
    latencies = Latencies(known, plan)
    mean, sd = latencies.predict(narrow)
    assert np.exp(mean) == pytest.approx([latency(c) for c in narrow])
    assert (sd == 0).all()
    wide = [c for c in configs if c.student_params["filters"] == 128]
    other = [c for c in drawn(plan, 60) if c.student == "bilstm"]
    assert (latencies.predict(wide)[1] > 0).all()
    assert (latencies.predict(other)[1] > 0).all()
    assert latencies.figure(other[0]) is None


def test_the_model_of_latency_is_better_than_none(spaces: Spaces) -> None:
    plan = plan_of(spaces)
    every = list({architecture(plan, c): c for c in drawn(plan, 200)}.values())
    for left_out in every:
        others = [c for c in every if c is not left_out]
        mean, sd = Latencies(Known(tried=[done(i, c) for i, c in enumerate(others)]), plan).predict(
            [left_out]
        )
        assert abs(mean[0] - math.log(latency(left_out))) < max(3 * sd[0], 0.3)


def test_an_architecture_is_looked_up_once(plan: Plan) -> None:
    asked: list[TrialConfig] = []

    def figures(config: TrialConfig) -> float | None:
        asked.append(config)
        return latency(config) if config.student == "textcnn" else None

    latencies = Latencies(Known(latency_ms=figures), plan)
    configs = drawn(plan, 200)
    mean, sd = latencies.predict(configs)
    assert len(asked) == len({architecture(plan, c) for c in configs})
    assert np.isfinite(mean).all()
    assert {bool(s == 0) for s, c in zip(sd, configs, strict=True) if c.student == "textcnn"} == {True}


def test_doubt_about_latency_is_averaged_over(plan: Plan) -> None:
    configs = drawn(plan, 30)
    unmeasured = [c for c in drawn(plan, 80, seed=8) if c.student == "bilstm"]
    tried = [done(i, c) for i, c in enumerate(c for c in configs if c.student == "textcnn")]
    outlook = Outlook(Known(tried=tried, quality_floor=FLOOR), plan)
    scores = outlook.scores(unmeasured)
    assert np.isfinite(scores).all()
    assert (scores > 0).all()


# ---------------------------------------------------------------- unfinished trials


def curve(number: int, config: TrialConfig, ends: Mapping[int, float], state: TrialState) -> Tried:
    best = max(ends.values()) if state == "complete" else None
    return Tried(number=number, config=config, state=state, latency_ms=1.0, qualities=ends, quality=best)


def test_an_unfinished_trial_counts_as_forecast(plan: Plan) -> None:
    configs = drawn(plan, 8)
    complete = [curve(i, c, {1: 0.5, 3: 0.7 + 0.01 * i}, "complete") for i, c in enumerate(configs[:6])]
    stopped = curve(6, configs[6], {1: 0.4}, "stopped")
    fresh = curve(7, configs[7], {}, "running")
    found = {t.number: (q, v) for t, q, v in observations([*complete, stopped, fresh])}
    assert set(found) == set(range(7))
    assert found[0] == (0.7, 0.0)
    assert 0.7 <= found[6][0] <= 0.75
    assert found[6][1] ** 0.5 > (found[6][0] - 0.4) / 2
    assert {t.number for t, _, _ in observations([*complete[:3], stopped])} == {0, 1, 2}


def test_who_waits_for_having_been_overtaken_is_forecast_without_bias(plan: Plan) -> None:
    """Of trials judged at a rung the better half went on: those gained less than the others would have."""
    rng = np.random.default_rng(0)
    early = rng.uniform(0.5, 0.9, 80)
    final = np.maximum(0.6 + 0.3 * early + rng.normal(0, 0.01, 80), early)
    config = drawn(plan, 1)[0]
    went_on = early > np.median(early)
    tried = [
        curve(i, config, {1: float(e), 3: float(f)} if on else {1: float(e)}, "complete" if on else "paused")
        for i, (e, f, on) in enumerate(zip(early, final, went_on, strict=True))
    ]
    found = {t.number: q for t, q, _ in observations(tried)}
    errors = [found[i] - final[i] for i in np.flatnonzero(~went_on)]
    gains = final[went_on] - early[went_on]
    biased = early[~went_on] + gains.mean() - final[~went_on]
    assert abs(np.mean(errors)) < 0.5 * abs(biased.mean())


# ---------------------------------------------------------------- what is left


def test_every_combination_comes_once(finite: Plan) -> None:
    rng = np.random.default_rng(0)
    every = [c.identity for c in combinations(finite, rng)]
    assert len(every) == len(set(every))
    assert {by_chance(finite, rng).identity for _ in range(2000)} == set(every)


def test_fixed_values_stay_fixed(plan: Plan) -> None:
    rng = np.random.default_rng(0)
    fixed = {"student": "textcnn", "scheme": "offline", "offline.loss": "mse"}
    configs = [*[by_chance(plan, rng, fixed) for _ in range(20)], *combinations(plan, rng, fixed)]
    assert {(c.student, c.scheme, c.scheme_params["loss"]) for c in configs} == {
        ("textcnn", "offline", "mse")
    }
    found = look_around(Outlook(known_of(drawn(plan, 20)), plan), rng, fixed)
    assert found is not None
    assert (found.student, found.scheme, found.scheme_params["loss"]) == ("textcnn", "offline", "mse")


def test_the_last_one_left_is_found_and_then_none(finite: Plan) -> None:
    rng = np.random.default_rng(0)
    every = list(combinations(finite, rng))
    last = every[len(every) // 3]
    tried = [done(i, c) for i, c in enumerate(c for c in every if c != last)]
    assert spare(finite, Refusals(Known(tried=tried), finite).accepts, rng) == last
    tried.append(done(len(tried), last))
    assert spare(finite, Refusals(Known(tried=tried), finite).accepts, rng) is None
    tried[-1] = done(len(tried), last, state="failed")
    assert spare(finite, Refusals(Known(tried=tried), finite).accepts, rng) == last


def test_why_a_configuration_is_refused(spaces: Spaces) -> None:
    plan = plan_of(spaces, ceiling=2.0)
    one, other = drawn(plan, 2)
    perfect = replace(done(0, one), quality=1.0, latency_ms=0.5)
    figures: dict[str, float | None] = {one.key: 0.5, other.key: None}
    refusals = Refusals(Known(tried=[perfect], latency_ms=lambda c: figures[c.key]), plan)
    assert refusals.why(one) == "duplicate"
    assert refusals.why(other) is None
    for figure, why in ((2.5, "latency"), (0.6, "front"), (0.5, "front"), (0.4, None)):
        figures[other.key] = figure
        assert refusals.why(other) == why
