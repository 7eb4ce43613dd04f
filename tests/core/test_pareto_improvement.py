"""The expected growth of the front: exact, against other ways to compute it, in the order it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from kdsearch.core.pareto import Point, expected_improvement, hypervolume

POINTS = st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.05, 9.0)), max_size=9)
QUALITY = st.floats(0.0, 1.0)
LATENCY = st.floats(0.05, 9.0)
SD = st.floats(0.0, 0.5)
REFERENCE = (0.3, 8.0)
FRONT: list[Point] = [(0.5, 0.2), (0.7, 1.0), (0.65, 2.0), (0.9, 5.0)]


def expected(points: list[Point], mean: float, sd: float, latency_ms: float) -> float:
    return float(expected_improvement(points, mean=mean, sd=sd, latency_ms=latency_ms, reference=REFERENCE))


def area(points: list[Point]) -> float:
    """Of (quality, log latency), by Optuna's own sum of boxes."""
    inside = [(-q, math.log(ms)) for q, ms in points if q > REFERENCE[0] and ms < REFERENCE[1]]
    if not inside:
        return 0.0
    reference = np.array([-REFERENCE[0], math.log(REFERENCE[1])])
    return float(compute_hypervolume(np.array(inside), reference))


@settings(deadline=None)
@given(POINTS, QUALITY, LATENCY)
def test_without_doubt_it_is_what_the_hypervolume_gains(
    points: list[Point], quality: float, latency: float
) -> None:
    gained = area([*points, (quality, latency)]) - area(points)
    assert expected(points, quality, 0.0, latency) == pytest.approx(gained, abs=1e-9)
    assert expected(points, quality, 1e-9, latency) == pytest.approx(gained, abs=1e-7)


@settings(deadline=None)
@given(POINTS)
def test_ours_is_optunas_hypervolume(points: list[Point]) -> None:
    logs = [(q, math.log(ms)) for q, ms in points]
    ours = hypervolume(logs, reference=(REFERENCE[0], math.log(REFERENCE[1])))
    assert ours == pytest.approx(area(points), abs=1e-9)


@pytest.mark.parametrize("latency", [0.1, 0.2, 0.7, 1.0, 3.0, 7.9])
@pytest.mark.parametrize(("mean", "sd"), [(0.6, 0.05), (0.75, 0.2), (0.95, 0.01), (0.2, 0.1)])
def test_it_is_the_mean_over_all_qualities(latency: float, mean: float, sd: float) -> None:
    z = np.linspace(-8, 8, 801)
    density = np.exp(-(z**2) / 2)
    gains = np.array([area([*FRONT, (mean + sd * at, latency)]) - area(FRONT) for at in z])
    gained = (gains * density).sum() / density.sum()
    assert expected(FRONT, mean, sd, latency) == pytest.approx(gained, rel=5e-3, abs=1e-9)


@settings(deadline=None)
@given(POINTS, QUALITY, SD, LATENCY, st.floats(0.0, 0.3), st.floats(0.0, 0.3), st.floats(1.0, 3.0))
def test_better_and_less_sure_and_faster_are_worth_more(
    points: list[Point], mean: float, sd: float, latency: float, more: float, wider: float, slower: float
) -> None:
    base = expected(points, mean, sd, latency)
    assert expected(points, mean + more, sd, latency) >= base - 1e-12
    assert expected(points, mean, sd + wider, latency) >= base - 1e-12
    assert expected(points, mean, sd, latency * slower) <= base + 1e-12
    assert base >= 0.0


@settings(deadline=None)
@given(st.permutations(FRONT), QUALITY, SD, LATENCY)
def test_the_order_of_the_trials_says_nothing(
    points: list[Point], mean: float, sd: float, latency: float
) -> None:
    assert expected(points, mean, sd, latency) == expected(FRONT, mean, sd, latency)


@settings(deadline=None)
@given(POINTS, QUALITY, SD, LATENCY, st.tuples(QUALITY, LATENCY))
def test_another_trial_never_leaves_more_to_win(
    points: list[Point], mean: float, sd: float, latency: float, more: Point
) -> None:
    assert expected([*points, more], mean, sd, latency) <= expected(points, mean, sd, latency) + 1e-12


@settings(deadline=None)
@given(POINTS, SD, st.floats(1.0, 3.0))
def test_beyond_the_slowest_latency_nothing_is_to_be_won(
    points: list[Point], sd: float, beyond: float
) -> None:
    assert expected(points, 1.0, sd, REFERENCE[1] * beyond) == 0.0


def test_what_cannot_reach_the_staircase_wins_nothing_and_the_tail_keeps_its_order() -> None:
    assert expected(FRONT, 0.6, 0.0, 3.0) == 0.0
    below = [expected(FRONT, 0.9 - gap, 0.01, 5.0) for gap in (0.1, 0.15, 0.2, 0.25, 0.3)]
    assert below == sorted(below, reverse=True)
    assert below[-1] > 0.0


def test_many_at_once_are_each_by_itself() -> None:
    mean, sd, latency = np.array([0.6, 0.8]), np.array([0.1, 0.0]), np.array([0.5, 3.0])
    found = expected_improvement(FRONT, mean=mean, sd=sd, latency_ms=latency, reference=REFERENCE)
    assert found.tolist() == [expected(FRONT, *one) for one in zip(mean, sd, latency, strict=True)]
