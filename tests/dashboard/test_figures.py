"""The Pareto chart says what the view says: front, standings, teacher, budget. No database, no browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from dashboard import front
from dashboard.figures import palette
from dashboard.figures import pareto as figures
from dashboard.front import COSTS, QUALITIES, View
from dashboard.queries.studies import Snapshot
from kdsearch.core.records import Standing
from kdsearch.store.reads import TeacherRow

Make = Callable[..., Snapshot]
ROWS = (
    {"quality": 0.80, "ms": 0.1},
    {"quality": 0.90, "ms": 1.0, "student": "textcnn", "scheme": "offline"},
    {"quality": 0.85, "ms": 2.0, "student": "textcnn"},
    {"quality": 0.95, "ms": 9.0, "student": "bilstm", "feasible": False},
)
MEGABYTE = 1_000_000


def draw(snapshot: Snapshot, picked: int | None = None, **view: Any) -> go.Figure:
    return figures.pareto(front.drawn(snapshot, View(**view)), ink=palette.LIGHT, picked=picked)


def traces(figure: go.Figure, name: str) -> list[Any]:
    return [t for t in figure.data if t.name == name and list(t.x) != [None]]


def marks(figure: go.Figure) -> dict[int, Any]:
    """The trace of each trial."""
    return {int(n): t for t in figure.data if t.customdata is not None for n in t.customdata}


def test_every_trial_with_a_place_is_drawn_once(make_snapshot: Make) -> None:
    more = [{"state": "running", "ms": 1.0}, {"state": "failed"}, {"state": "waiting", "ms": 1.0}]
    figure = draw(make_snapshot(*ROWS, *more))
    drawn = [int(n) for t in figure.data if t.customdata is not None for n in t.customdata]
    assert sorted(drawn) == [0, 1, 2, 3, 4]


def test_standings_are_told_apart(make_snapshot: Make) -> None:
    found = marks(draw(make_snapshot(*ROWS)))
    assert [found[n].name for n in range(4)] == ["on the front", "on the front", "dominated", "over a limit"]
    assert [found[n].marker.opacity for n in range(3)] == [1.0, 1.0, figures.FADED]
    assert [found[n].marker.symbol.endswith("-open") for n in range(4)] == [False, False, False, True]


def test_colour_is_the_student_and_symbol_the_scheme(make_snapshot: Make) -> None:
    found = marks(draw(make_snapshot(*ROWS)))
    assert found[1].marker.color == found[2].marker.color != found[0].marker.color
    assert found[0].marker.symbol == found[2].marker.symbol != found[1].marker.symbol
    assert {found[n].marker.color for n in range(4)} <= set(palette.OKABE_ITO)


def test_a_filter_changes_no_colour(make_snapshot: Make) -> None:
    everything, some = draw(make_snapshot(*ROWS)), draw(make_snapshot(*ROWS), students=["textcnn"])
    assert marks(everything)[1].marker.color == marks(some)[1].marker.color
    assert {t.name for t in some.data if t.legendgroup == "Student"} == {"textcnn"}


def test_the_front_is_a_step_line_on_to_the_edge(make_snapshot: Make) -> None:
    (steps,) = traces(draw(make_snapshot(*ROWS)), "front")
    assert steps.line.shape == "hv"
    assert list(steps.x)[:2] == [0.1, 1.0]
    assert list(steps.y) == [0.80, 0.90, 0.90]
    assert steps.x[2] == 2.0, "it ends at the study's limit"


def test_a_budget_is_shaded(make_snapshot: Make) -> None:
    figure = draw(make_snapshot(*ROWS), within_ms=0.5)
    assert list(traces(figure, "front")[0].y) == [0.80, 0.80]
    assert marks(figure)[1].name == "over a limit"
    (shade,) = [s for s in figure.layout.shapes if s.type == "rect"]
    assert shade.x0 == 0.5
    assert shade.x1 > 9.0
    assert [
        s for s in draw(make_snapshot(*ROWS), cost=COSTS["size_mb"]).layout.shapes if s.type == "rect"
    ] == []


def test_intervals_stand_on_the_front_once_they_are_known(make_snapshot: Make) -> None:
    standing = Standing(number=1, quality=0.89, low=0.85, high=0.93, on_front=0.99, seeds=(1, 2))
    figure = draw(replace(make_snapshot(*ROWS), standings={1: standing}))
    bars = marks(figure)[1].error_y
    assert np.allclose([bars.array[0], bars.arrayminus[0]], [0.04, 0.04]), "around the mean"
    assert marks(figure)[0].error_y.array[0] == 0.0
    assert marks(draw(make_snapshot(*ROWS)))[1].error_y.visible is False


def test_the_teacher_is_a_star_where_it_was_measured(make_snapshot: Make, teacher_row: TeacherRow) -> None:
    snapshot = make_snapshot(*ROWS, teacher=teacher_row)
    (star,) = traces(draw(snapshot), "teacher")
    assert (star.marker.symbol, list(star.x), list(star.y)) == ("star", [20], [0.9])
    (median,) = traces(draw(snapshot, cost=COSTS["p50_ms"]), "teacher")
    assert list(median.x) == [16.0]
    assert traces(draw(snapshot, quality=QUALITIES["agreement"]), "teacher") == []


def test_a_teacher_without_a_latency_is_a_line_only(make_snapshot: Make, teacher_row: TeacherRow) -> None:
    figure = draw(make_snapshot(*ROWS, teacher=replace(teacher_row, latency=None)))
    dotted = [s for s in figure.layout.shapes if s.type == "line" and s.line.dash == "dash"]
    assert [s.y0 for s in dotted] == [0.9]
    assert traces(figure, "teacher") == []


def test_what_runs_stands_at_its_best_so_far(make_snapshot: Make) -> None:
    rows = [{"state": "running", "ms": 1.0, "so_far": 0.7}, {"state": "paused", "ms": 2.0, "so_far": np.nan}]
    figure = draw(make_snapshot(*ROWS, *rows))
    assert [list(t.y) for t in traces(figure, "running")] == [[0.7]]
    assert [list(t.y) for t in traces(figure, "paused")] == [[0.8]]


def test_axes_say_what_they_are(make_snapshot: Make) -> None:
    layout = draw(make_snapshot(*ROWS)).layout
    assert (layout.xaxis.type, layout.xaxis.title.text) == ("log", "latency, p90 (ms, log)")
    assert layout.yaxis.title.text == "quality (f1:spam)"
    other = draw(make_snapshot(*ROWS), cost=COSTS["throughput"], quality=QUALITIES["recall"]).layout
    assert (other.xaxis.title.text, other.yaxis.title.text) == (
        "throughput (texts/s, log)",
        "recall of the worst class",
    )


def test_what_a_person_wrote_is_no_tag(make_snapshot: Make) -> None:
    figure = draw(make_snapshot(*ROWS, quality_name="f1:<img src=x>"))
    assert figure.layout.yaxis.title.text == "quality (f1:&lt;img src=x&gt;)"


def test_the_picked_trial_has_a_ring(make_snapshot: Make) -> None:
    (ring,) = traces(draw(make_snapshot(*ROWS), picked=2), "picked")
    assert (list(ring.x), list(ring.y)) == ([2.0], [0.85])
    assert traces(draw(make_snapshot(*ROWS), picked=99), "picked") == []


def test_the_knee_is_marked_as_a_suggestion(make_snapshot: Make) -> None:
    rows = [{"quality": q, "ms": ms} for q, ms in ((0.5, 0.01), (0.89, 0.1), (0.9, 1.0))]
    (note,) = draw(make_snapshot(*rows)).layout.annotations
    assert "suggestion" in note.text
    assert (note.x, note.y) == (pytest.approx(-1.0), 0.89)


@pytest.mark.parametrize(
    "rows", [(), ({"quality": 0.9, "ms": 9.0, "feasible": False},)], ids=["none", "over"]
)
def test_nothing_feasible_has_no_front(make_snapshot: Make, rows: tuple[dict[str, Any], ...]) -> None:
    assert traces(draw(make_snapshot(*rows)), "front") == []


def test_ten_thousand_points_are_a_small_cloud(make_snapshot: Make) -> None:
    draws = np.random.default_rng(1)
    kinds = [(s, k) for s in ("bag", "textcnn", "bilstm") for k in ("none", "offline")]
    rows = [
        {"quality": q, "ms": ms, "student": kinds[i % 6][0], "scheme": kinds[i % 6][1]}
        for i, (q, ms) in enumerate(
            zip(draws.uniform(0.5, 1, 10_000), draws.uniform(0.1, 2, 10_000), strict=True)
        )
    ]
    figure = draw(make_snapshot(*rows))
    points = sum(len(trace.x) for trace in figure.data if trace.name == "dominated")
    assert 500 < points <= figures.PLACES**2
    assert {trace.type for trace in figure.data} == {"scatter"}, "WebGL takes longer to start"
    assert len(figure.to_json()) < MEGABYTE / 4
    few = draw(make_snapshot(*rows[:500]))
    assert sum(len(trace.customdata) for trace in few.data if trace.customdata is not None) == 500


def test_of_many_points_the_best_of_each_place_stay(make_snapshot: Make) -> None:
    draws = np.random.default_rng(2)
    rows = [
        {"quality": q, "ms": ms}
        for q, ms in zip(draws.normal(0.8, 0.05, 5000), draws.lognormal(0, 1, 5000), strict=True)
    ]
    drawn = front.drawn(make_snapshot(*rows), View())
    mask = drawn.inside
    kept = figures.thinned(drawn, mask)
    assert not (kept & ~mask).any()
    assert 300 < kept.sum() <= figures.PLACES**2
    assert drawn.y[kept].max() == drawn.y[mask].max()


def test_failures_far_below_do_not_squeeze_the_chart(make_snapshot: Make) -> None:
    rows = [{"quality": 0.9 + n / 200, "ms": 0.1 + n} for n in range(12)] + [{"quality": 0.0, "ms": 0.1}]
    standing = Standing(number=0, quality=0.9, low=0.86, high=0.99, on_front=0.99, seeds=(1, 2))
    layout = draw(replace(make_snapshot(*rows), standings={0: standing})).layout
    low, high = layout.yaxis.range
    assert 0.7 < low < 0.86
    assert 0.99 < high < 1.1
    assert "1 trial further down" in layout.annotations[-1].text
    assert draw(make_snapshot(*rows[:7])).layout.yaxis.range is None


@pytest.mark.parametrize("names", [["b", "a", "a"], ["a", "b"]])
def test_codes_do_not_depend_on_the_order(names: list[str]) -> None:
    assert palette.codes(names, ("x", "y")) == {"a": "x", "b": "y"}
