"""Successive halving with two objectives: ranks that are ranks, and a floor under the fast and useless."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kdsearch.core.pareto import Point, front
from kdsearch.core.records import TrialConfig, TrialState, Tried
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.pruners.base import Ladder, Situation
from kdsearch.search.pruners.ranking import Entry, by_dominance, fronts, leading

LADDER = Ladder(rungs=(1, 3), epochs=9, factor=3)
TYPES = ("mo_asha", "mo_asha_promotion")
CONFIG = TrialConfig(
    student="bag",
    student_params={},
    scheme="none",
    scheme_params={},
    learning_rate=1e-3,
    batch_size=32,
    epochs=9,
    seed=17,
)
POINTS = st.lists(
    st.tuples(st.integers(1, 100).map(lambda q: q / 100), st.integers(1, 60).map(float)),
    min_size=1,
    max_size=25,
)


def trial(number: int, point: Point, *, rung: int = 1, state: TrialState = "running") -> Tried:
    quality, latency = point
    curve = dict.fromkeys(range(1, rung + 1), quality)
    return Tried(number=number, config=CONFIG, state=state, latency_ms=latency, qualities=curve)


def action(name: str, own: Point, others: Sequence[Point], *, floor: float = 0.0) -> str:
    trials = [trial(n, p) for n, p in enumerate([*others, own])]
    known = Situation(tried=trials, ladder=LADDER, quality_floor=floor)
    return PRUNERS[name]().judge(trials[-1], known).action


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=100, deadline=None)
@given(others=POINTS, better=st.integers(0, 20), faster=st.floats(0.01, 1.0), floor=st.floats(0, 1))
def test_who_dominates_all_others_goes_on(
    name: str, others: list[Point], better: int, faster: float, floor: float
) -> None:
    own = (max(q for q, _ in others) + better / 100, min(ms for _, ms in others) * faster)
    assume(own not in others)
    assert action(name, own, others, floor=floor) == "continue"


@pytest.mark.parametrize("name", [*TYPES, "asha"])
@settings(max_examples=100, deadline=None)
@given(others=POINTS, floor=st.floats(0, 1))
def test_who_is_dominated_by_all_others_is_paused(name: str, others: list[Point], floor: float) -> None:
    assume(len(others) >= LADDER.factor)
    own = (min(q for q, _ in others) - 0.005, max(ms for _, ms in others) + 1)
    assert action(name, own, others, floor=floor) == "pause"


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=50, deadline=None)
@given(points=POINTS, power=st.floats(0.2, 4), floor=st.floats(0, 0.5))
def test_only_the_order_of_latencies_counts(
    name: str, points: list[Point], power: float, floor: float
) -> None:
    bent = [(q, 3.0 * ms**power) for q, ms in points]
    found = action(name, points[-1], points[:-1], floor=floor)
    assert action(name, bent[-1], bent[:-1], floor=floor) == found


@pytest.mark.parametrize("name", ["mo_asha", "asha"])
@settings(max_examples=50, deadline=None)
@given(points=POINTS, seed=st.integers(0, 1000))
def test_which_of_the_others_came_first_does_not_count(name: str, points: list[Point], seed: int) -> None:
    *others, own = points
    mixed = random.Random(seed).sample(others, len(others))
    assert action(name, own, mixed) == action(name, own, others)


@pytest.mark.parametrize("name", TYPES)
def test_the_fastest_is_not_let_through_for_being_fast(name: str) -> None:
    others = [(0.7 + n / 100, 1.0 + n) for n in range(9)]
    assert action(name, (0.5, 0.001), others, floor=0.5) == "pause"
    assert action(name, (0.71, 0.001), others, floor=0.5) == "continue", "fast and of use"


def test_a_tie_is_no_reason_to_stop_for_good() -> None:
    assert action("mo_asha", (0.5, 1.0), [(0.5, 1.0)] * 11) == "continue"
    assert action("mo_asha_promotion", (0.5, 1.0), [(0.5, 1.0)] * 11) == "pause", "it may be called back"


@settings(max_examples=60, deadline=None)
@given(points=POINTS)
def test_layers_are_fronts_of_what_is_left(points: list[Point]) -> None:
    left = sorted(set(points))
    for layer in fronts(left):
        assert sorted(layer) == sorted(left[i] for i in front(left))
        left = [p for p in left if p not in layer]
    assert left == []


@settings(max_examples=60, deadline=None)
@given(points=POINTS, floor=st.floats(0, 1))
def test_every_point_has_its_place_and_no_dominated_one_comes_before_its_better(
    points: list[Point], floor: float
) -> None:
    order = list(by_dominance(sorted(set(points)), floor))
    assert sorted(order) == sorted(set(points))
    for place, (quality, latency) in enumerate(order):
        assert not any(q >= quality and ms <= latency for q, ms in order[place + 1 :])


def test_of_two_close_points_one_comes_late() -> None:
    close = [(0.90, 5.0), (0.901, 5.1), (0.7, 1.0), (0.95, 30.0)]
    assert set(list(by_dominance(close, 0.5))[:2]) & {(0.90, 5.0), (0.901, 5.1)} != {
        (0.90, 5.0),
        (0.901, 5.1),
    }


def test_no_more_lead_than_there_is_room_for() -> None:
    entries = [Entry(number, (0.5, 1.0)) for number in (4, 2, 9)]
    assert [e.number for e in leading(entries, 2, by_dominance, 0.0)] == [2, 4]


# ---------------------------------------------------------------- calling back


def test_a_paused_trial_is_called_back_when_there_is_room_for_it() -> None:
    pruner = PRUNERS["mo_asha_promotion"]()
    early = [trial(0, (0.9, 1.0), rung=3), trial(1, (0.8, 2.0), state="paused")]
    worse = [trial(n, (0.5, 3.0 + n), state="paused") for n in range(2, 6)]
    few = Situation(tried=early, ladder=LADDER, quality_floor=0.0)
    many = replace(few, tried=[*early, *worse])
    assert pruner.promotions(few) == []
    assert [(n, d.epoch) for n, d in pruner.promotions(many)] == [(1, 1)]
    assert PRUNERS["mo_asha"]().promotions(many) == ()


def test_the_highest_rung_is_served_first() -> None:
    low = [trial(n, (0.5 + n / 100, 5.0), state="paused") for n in range(3)]
    high = [trial(n, (0.6, 2.0 + n), rung=3, state="paused") for n in range(3, 6)]
    known = Situation(tried=[*low, *high], ladder=LADDER, quality_floor=0.0)
    assert next(d.epoch for _, d in PRUNERS["mo_asha_promotion"]().promotions(known)) == 3


@settings(max_examples=60, deadline=None)
@given(points=POINTS, floor=st.floats(0, 1), seed=st.integers(0, 1000))
def test_where_all_wait_somebody_is_called_back(points: list[Point], floor: float, seed: int) -> None:
    draw = random.Random(seed)
    waiting = [trial(n, p, rung=draw.choice((1, 3)), state="paused") for n, p in enumerate(points)]
    known = Situation(tried=waiting, ladder=LADDER, quality_floor=floor)
    assert PRUNERS["mo_asha_promotion"]().promotions(known)
