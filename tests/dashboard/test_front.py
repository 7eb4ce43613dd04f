"""What a view shows: filters first, then the budget, then the front; the choice; the knee. No database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import front
from dashboard.front import COSTS, QUALITIES, Drawn, View
from dashboard.queries.studies import Snapshot
from kdsearch.core.records import Standing

Make = Callable[..., Snapshot]
ROWS = (
    {"quality": 0.80, "ms": 0.1},
    {"quality": 0.90, "ms": 1.0, "student": "textcnn", "scheme": "offline"},
    {"quality": 0.85, "ms": 2.0, "student": "textcnn"},
    {"quality": 0.95, "ms": 9.0, "student": "bilstm", "feasible": False},
)


def numbers(drawn: Drawn, positions: Sequence[int]) -> list[int]:
    return [int(drawn.trials.number[i]) for i in positions]


def words(drawn: Drawn) -> dict[int, str]:
    where = np.arange(len(drawn.trials))
    return dict(zip(drawn.trials.number.tolist(), drawn.standings_of(where).tolist(), strict=True))


def test_the_front_is_of_what_is_feasible(make_snapshot: Make) -> None:
    drawn = front.drawn(make_snapshot(*ROWS), View())
    assert numbers(drawn, drawn.front) == [0, 1]
    assert words(drawn) == {0: "on the front", 1: "on the front", 2: "dominated", 3: "over a limit"}
    assert drawn.best is not None
    assert int(drawn.trials.number[drawn.best]) == 1


def test_a_budget_comes_before_the_front(make_snapshot: Make) -> None:
    drawn = front.drawn(make_snapshot(*ROWS), View(within_ms=0.5))
    assert numbers(drawn, drawn.front) == [0]
    assert words(drawn)[1] == "over a limit"
    none = front.drawn(make_snapshot(*ROWS), View(within_ms=0.01))
    assert (none.front, none.best, none.knee) == ([], None, None)


def test_a_filter_comes_before_the_front(make_snapshot: Make) -> None:
    drawn = front.drawn(make_snapshot(*ROWS), View(students=["textcnn"], schemes=["none"]))
    assert numbers(drawn, drawn.front) == [2]
    assert len(drawn.trials) == 1


def test_what_has_no_place_on_the_chart_is_left_out(make_snapshot: Make) -> None:
    rows = [*ROWS, {"state": "failed"}, {"state": "waiting"}, {"state": "running", "ms": 1.0}]
    drawn = front.drawn(make_snapshot(*rows), View())
    assert drawn.trials.number.tolist() == [0, 1, 2, 3, 6]
    assert words(drawn)[6] == "running"
    assert front.drawn(make_snapshot(*rows), View(states=["complete"])).trials.number.tolist() == [0, 1, 2, 3]


def test_over_throughput_more_is_better(make_snapshot: Make) -> None:
    drawn = front.drawn(make_snapshot(*ROWS), View(cost=COSTS["throughput"]))
    assert sorted(numbers(drawn, drawn.front)) == [0, 1]


def test_several_seeds_count_for_more_than_one_lucky_training(make_snapshot: Make) -> None:
    standing = Standing(number=0, quality=0.79, low=0.7, high=0.85, on_front=1.0, seeds=(1, 2))
    snapshot = replace(
        make_snapshot(*ROWS), standings={0: standing, 1: replace(standing, number=1, seeds=(1,))}
    )
    drawn = front.drawn(snapshot, View())
    assert drawn.best is not None
    assert int(drawn.trials.number[drawn.best]) == 0
    places = [int(np.flatnonzero(drawn.trials.number == number)[0]) for number in (0, 1)]
    assert drawn.y[places[0]] == 0.79, "drawn at its mean"
    assert drawn.y[places[1]] == drawn.trials.quality[places[1]], "one training has no mean"
    other = front.drawn(snapshot, View(quality=QUALITIES["accuracy"]))
    assert np.array_equal(other.y, other.trials.accuracy, equal_nan=True)


def test_the_knee_is_where_the_front_bends(make_snapshot: Make) -> None:
    rows = [{"quality": q, "ms": ms} for q, ms in ((0.5, 0.01), (0.89, 0.02), (0.9, 1.0))]
    drawn = front.drawn(make_snapshot(*rows), View())
    assert drawn.knee is not None
    assert int(drawn.trials.number[drawn.knee]) == 1
    assert front.drawn(make_snapshot(*rows[:2]), View()).knee is None


@pytest.mark.parametrize("axis", [*QUALITIES.values(), *COSTS.values()], ids=lambda axis: axis.name)
def test_every_axis_has_a_column(make_snapshot: Make, axis: front.Axis) -> None:
    assert len(axis.of(make_snapshot(*ROWS).trials)) == 4


def test_budgets_worth_asking_for_span_the_trials(make_snapshot: Make) -> None:
    steps = front.budgets(make_snapshot(*ROWS))
    assert steps == sorted(steps)
    assert 0.1 <= steps[0] <= 0.11
    assert 9.0 <= steps[-1] <= 10.0
    assert front.budgets(make_snapshot()) == [2.0]


@given(st.floats(1e-4, 1e4))
def test_rounding_up_is_up_and_near(value: float) -> None:
    rounded = front.rounded_up(value)
    assert value <= rounded * (1 + 1e-9)
    assert rounded <= value * 1.1 + 1e-9


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 100), st.booleans()), min_size=1, max_size=30),
    st.none() | st.floats(0.001, 100),
)
def test_the_front_is_what_nothing_beats(
    make_snapshot: Make, made: list[tuple[float, float, bool]], within_ms: float | None
) -> None:
    rows: list[dict[str, Any]] = [{"quality": q, "ms": ms, "feasible": ok} for q, ms, ok in made]
    drawn = front.drawn(make_snapshot(*rows), View(within_ms=within_ms))
    inside = [(q, ms) for q, ms, ok in made if ok and (within_ms is None or ms <= within_ms)]
    beaten = {(q, ms) for q, ms in inside if any(a >= q and b <= ms and (a, b) != (q, ms) for a, b in inside)}
    assert {(float(drawn.y[i]), float(drawn.x[i])) for i in drawn.front} == set(inside) - beaten
