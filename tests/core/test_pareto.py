"""The front by its definition, on all kinds of points."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from kdsearch.core.pareto import Point, front, hypervolume, staircase

COARSE = st.tuples(st.integers(0, 6).map(lambda q: q / 6), st.integers(1, 6).map(float))
"""Coarse, so that ties and equal points are common."""
POINTS = st.lists(COARSE, max_size=14)
REFERENCE = (0.0, 7.0)


def dominates(a: Point, b: Point) -> bool:
    return a != b and a[0] >= b[0] and a[1] <= b[1]


@given(POINTS)
def test_the_front_is_what_nothing_dominates_fastest_first(points: list[Point]) -> None:
    kept = front(points)
    undominated = [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]
    assert sorted(kept) == undominated
    assert len(set(kept)) == len(kept)
    shown = [points[i] for i in kept]
    assert shown == sorted(shown, key=lambda p: (p[1], p[0]))


@given(POINTS, st.integers(1, 6).map(float))
def test_a_point_is_on_the_front_iff_it_beats_the_staircase(points: list[Point], latency: float) -> None:
    step = staircase(points, latency)
    assert step == max([q for q, ms in points if ms <= latency], default=-math.inf)
    for quality in (0.0, 0.5, 1.0):
        joined = [*points, (quality, latency)]
        if quality > step:
            assert len(points) in front(joined)
        elif (quality, latency) not in points:
            assert len(points) not in front(joined)


@given(POINTS)
def test_the_hypervolume_counts_the_dominated_cells(points: list[Point]) -> None:
    cells = sum(
        any(q >= (i + 1) / 6 and ms <= column for q, ms in points) / 6
        for i in range(6)
        for column in range(1, 7)
    )
    assert math.isclose(hypervolume(points, reference=REFERENCE), cells, abs_tol=1e-9)


@given(POINTS, COARSE)
def test_another_point_never_makes_the_hypervolume_smaller(points: list[Point], more: Point) -> None:
    before, after = (hypervolume(ps, reference=REFERENCE) for ps in (points, [*points, more]))
    assert after >= before - 1e-12
    if len(points) in front([*points, more]) and more not in points and more[0] > 0:
        assert after > before
