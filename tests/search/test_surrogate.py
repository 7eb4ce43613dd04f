"""Models of quality on a conditional space: distances, few and many trials, and how honest their doubt is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdsearch.core.records import TrialConfig
from kdsearch.core.spec import StudySpec
from kdsearch.core.specdata import DataSpec, SourceSpec
from kdsearch.core.specteacher import TeacherSpec
from kdsearch.search.drawing import by_chance
from kdsearch.search.features import Features
from kdsearch.search.forest import forest
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import Spaces
from kdsearch.search.surrogate import (
    MOST_TRIALS,
    FittedProcess,
    GaussianProcess,
    MakeModel,
    gaussian_process,
    most_relevant,
)

MODELS: dict[str, MakeModel] = {"gaussian_process": gaussian_process, "forest": forest}


@pytest.fixture
def plan(spaces: Spaces) -> Plan:
    source = SourceSpec(path="x")
    data = DataSpec(train=source, validation=source)
    return Plan(StudySpec(version=1, name="s", data=data, teacher=TeacherSpec(model="m")), spaces)


def drawn(plan: Plan, count: int, seed: int = 0) -> list[TrialConfig]:
    rng = np.random.default_rng(seed)
    return [by_chance(plan, rng) for _ in range(count)]


def quality(config: TrialConfig) -> float:
    """A smooth function of what exists."""
    found = 0.8 - 0.03 * (math.log(config.learning_rate) + 7) ** 2
    found += 0.05 * (config.student == "bilstm") + 0.03 * (config.scheme == "offline")
    temperature = config.scheme_params.get("temperature")
    if isinstance(temperature, float):
        found -= 0.02 * (math.log(temperature) - 1) ** 2
    return found


def distance(plan: Plan, one: TrialConfig, other: TrialConfig) -> dict[str, float]:
    features = Features.of(plan)
    found = features.distances(features.encode([one]), features.encode([other]))[:, 0, 0]
    return {f.name: float(d) for f, d in zip(features.features, found, strict=True)}


def with_scheme(config: TrialConfig, scheme: str, **params: float | str) -> TrialConfig:
    scheme_params = {name.replace("lambda_", "lambda"): value for name, value in params.items()}
    return TrialConfig.from_json({**config.to_json(), "scheme": scheme, "scheme_params": scheme_params})


def test_what_does_not_exist_is_no_value(plan: Plan) -> None:
    base = drawn(plan, 1)[0]
    none = with_scheme(base, "none")
    offline = [
        with_scheme(base, "offline", loss="kl", temperature=t, lambda_=weight)
        for t in (1.0, 3.0, 16.0)
        for weight in (0.1, 1.0)
    ]
    mse = with_scheme(base, "offline", loss="mse", lambda_=0.5)
    one_lacks_it = {round(distance(plan, none, other)["offline.temperature"], 12) for other in offline}
    assert len(one_lacks_it) == 1
    assert one_lacks_it.pop() > 0
    assert distance(plan, none, mse)["offline.temperature"] == 0.0
    assert distance(plan, none, none) == dict.fromkeys(distance(plan, none, none), 0.0)


def test_a_number_is_far_from_another_in_its_own_scale(plan: Plan) -> None:
    base = drawn(plan, 1)[0]
    at = {
        t: with_scheme(base, "offline", loss="kl", temperature=t, lambda_=0.5) for t in (1.0, 2.0, 4.0, 16.0)
    }
    apart = [distance(plan, at[a], at[b])["offline.temperature"] for a, b in ((1.0, 2.0), (2.0, 4.0))]
    assert apart[0] == pytest.approx(apart[1])
    assert distance(plan, at[1.0], at[16.0])["offline.temperature"] == pytest.approx(1.0)
    assert apart[0] < distance(plan, at[1.0], at[4.0])["offline.temperature"] < 1.0


def test_the_kernel_is_positive_definite_on_any_mixture(plan: Plan) -> None:
    configs = drawn(plan, 60)
    for seed in range(3):
        fitted = fit(gaussian_process, plan, configs, [quality(c) + 0.01 * seed for c in configs])
        assert isinstance(fitted, FittedProcess)
        features = fitted.features
        points = features.encode(drawn(plan, 80, seed))
        matrix = fitted.kernel(features.distances(points, points))
        assert np.linalg.eigvalsh(matrix).min() > -1e-8 * np.trace(matrix)


def fit(make: MakeModel, plan: Plan, configs: list[TrialConfig], qualities: list[float]) -> object:
    return make(plan).fit(configs, qualities)


@pytest.mark.parametrize("count", [5, 30, 120])
def test_the_gaussian_process_is_honest_about_its_doubt(plan: Plan, count: int) -> None:
    asked = drawn(plan, 200, seed=99)
    truth = np.array([quality(c) for c in asked])
    inside, errors = [], []
    for seed in range(3):
        configs = drawn(plan, count, seed)
        rng = np.random.default_rng(seed)
        model = gaussian_process(plan).fit(
            configs, [quality(c) + 0.002 * rng.standard_normal() for c in configs]
        )
        mean, sd = model.predict(asked)
        inside.append(np.mean(np.abs(mean - truth) < 2 * sd + 0.002))
        errors.append(np.sqrt(np.mean((mean - truth) ** 2)))
    assert np.mean(inside) > 0.8
    if count >= 30:
        assert np.mean(errors) < 0.5 * truth.std()
    if count >= 120:
        assert np.mean(errors) < 0.15 * truth.std()


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_it_learns(self, plan: Plan, name: str) -> None:
        configs, asked = drawn(plan, 120), drawn(plan, 100, seed=5)
        mean, sd = MODELS[name](plan).fit(configs, [quality(c) for c in configs]).predict(asked)
        assert np.corrcoef(mean, [quality(c) for c in asked])[0, 1] > 0.8
        assert (sd > 0).all()

    def test_it_is_sure_of_what_it_believes(self, plan: Plan, name: str) -> None:
        configs, pending = drawn(plan, 20), drawn(plan, 4, seed=7)
        model = MODELS[name](plan).fit(configs, [quality(c) for c in configs])
        before, after = model.predict(pending), model.believing(pending).predict(pending)
        assert after[1].mean() < before[1].mean()
        assert after[0] == pytest.approx(before[0], abs=0.05)

    def test_equal_trials_and_equal_qualities_are_no_trouble(self, plan: Plan, name: str) -> None:
        one = drawn(plan, 1)
        mean, sd = MODELS[name](plan).fit(one * 8, [0.7] * 8).predict(drawn(plan, 5))
        assert np.isfinite(mean).all()
        assert np.isfinite(sd).all()
        assert mean == pytest.approx(0.7, abs=0.3)

    def test_the_same_again_is_the_same(self, plan: Plan, name: str) -> None:
        configs = drawn(plan, 20)
        fits = [MODELS[name](plan).fit(configs, [quality(c) for c in configs]) for _ in range(2)]
        once, again = (model.predict(configs)[0].tolist() for model in fits)
        assert once == again


def test_a_quality_that_is_uncertain_itself_counts_less(plan: Plan) -> None:
    configs = drawn(plan, 30)
    qualities = [quality(c) for c in configs]
    wrong = [*qualities[:-1], qualities[-1] - 0.3]
    doubts = [0.0] * 29
    trusted, doubted = (
        gaussian_process(plan).fit(configs, wrong, [*doubts, variance]).predict(configs[-1:])[0][0]
        for variance in (0.0, 0.1)
    )
    assert abs(doubted - qualities[-1]) < abs(trusted - qualities[-1])


def test_the_gradient_of_the_fit_is_that_of_its_value(plan: Plan) -> None:
    from kdsearch.search.surrogate import _negative_log_likelihood

    features = Features.of(plan)
    process = GaussianProcess(features)
    configs = drawn(plan, 15)
    points = features.encode(configs)
    distances = features.distances(points, points)
    targets = np.array([quality(c) for c in configs])
    targets = (targets - targets.mean()) / targets.std()
    theta, _ = process._prior_vectors()
    theta = theta + np.random.default_rng(0).normal(0, 0.3, len(theta))

    def value(at: np.ndarray) -> float:
        return _negative_log_likelihood(process._kernel(at), distances, targets, np.full(15, 0.01))[0]

    gradient = _negative_log_likelihood(process._kernel(theta), distances, targets, np.full(15, 0.01))[1]
    for i in range(len(theta)):
        step = np.zeros(len(theta))
        step[i] = 1e-5
        assert gradient[i] == pytest.approx((value(theta + step) - value(theta - step)) / 2e-5, abs=1e-4)


def test_of_too_many_trials_the_best_and_some_of_the_others_stay() -> None:
    qualities = np.random.default_rng(0).random(3 * MOST_TRIALS)
    kept = most_relevant(qualities)
    assert len(kept) == MOST_TRIALS == len(set(kept.tolist()))
    assert set(np.argsort(-qualities)[: MOST_TRIALS // 2].tolist()) <= set(kept.tolist())
    assert qualities[kept].min() < 0.1
    assert most_relevant(qualities[:7]).tolist() == list(range(7))


def test_more_trials_than_are_looked_at(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdsearch.search.surrogate.MOST_TRIALS", 40)
    monkeypatch.setattr("kdsearch.search.surrogate.MOST_FITTED", 20)
    configs = drawn(plan, 90)
    mean, _ = gaussian_process(plan).fit(configs, [quality(c) for c in configs]).predict(configs)
    assert np.corrcoef(mean, [quality(c) for c in configs])[0, 1] > 0.8
