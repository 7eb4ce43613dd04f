"""The Pareto chart says what the rows say: front, standings, teacher, budget. No database, no browser."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.figures import palette
from dashboard.figures import pareto as figures
from kdsearch.core.records import HardwareProfile, Latency, Scores
from kdsearch.store import reads
from kdsearch.store.reads import StudyRow, TeacherRow, TrialRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROFILE = HardwareProfile(
    device_model="a machine", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
)
TRIAL = TrialRow(
    number=0, state="complete", student="bag", scheme="none", params={}, quality=0.5, scores=None,
    latency=None, latency_ms=1.0, size_mb=0.5, feasible=True, attempt=1, worker="w", best_epoch=1,
    epochs_run=1, rows_seen=1, train_seconds=1.0, failure=None, artifact=None, validation_logits=None,
    created_at=NOW, started_at=NOW, finished_at=NOW,
)  # fmt: skip
STUDY = StudyRow(
    id=1, name="sms", state="open", error=None, spec={}, spec_text="", spec_sha256="", data_fingerprint="",
    artifacts_url="", counts={}, budget_trials=10, budget_hours=None, budget_failed=1, active_seconds=0.0,
    prepared=None, teacher=None, quality_name="f1:spam", latency_name="p90_ms", created_at=NOW,
)  # fmt: skip
TEACHER = TeacherRow(
    scores=Scores(quality=0.9, accuracy=0.9, macro_f1=0.9, nll=0.1, recall={}),
    latency=Latency(
        p50_ms=15, p90_ms=20, p99_ms=30, mean_ms=16, num_queries=200, seconds=1, size_mb=90,
        num_params=9, tokenize_p50_ms=0.1, noisy=False, profile=PROFILE,
    ),
)  # fmt: skip


def trial(number: int, quality: float, ms: float, **given: Any) -> TrialRow:
    return replace(TRIAL, number=number, quality=quality, latency_ms=ms, **given)


FAST = trial(0, 0.80, 0.1)
GOOD = trial(1, 0.90, 1.0, student="textcnn", scheme="offline")
WORSE = trial(2, 0.85, 2.0, student="textcnn")
SLOW = trial(3, 0.95, 9.0, student="bilstm", feasible=False)
ROWS = [FAST, GOOD, WORSE, SLOW]


def draw(rows: list[TrialRow], study: StudyRow = STUDY, within_ms: float | None = None) -> go.Figure:
    front = reads.front(rows, within_ms=within_ms)
    return figures.pareto(study, figures.points(rows, front=front, within_ms=within_ms), within_ms=within_ms)


def trace(figure: go.Figure, name: str) -> Any:
    """The trace with points of that name, not its line in the legend."""
    (found,) = [t for t in figure.data if t.name == name and list(t.x) != [None]]
    return found


def marks(figure: go.Figure) -> dict[int, tuple[str, float, str]]:
    """(symbol, opacity, colour) of each trial."""
    return {
        about[0]: (symbol, opacity, t.marker.color)
        for t in figure.data
        if t.customdata is not None
        for about, symbol, opacity in zip(t.customdata, t.marker.symbol, t.marker.opacity, strict=True)
    }


def test_every_finished_trial_is_drawn_once_and_no_other() -> None:
    unfinished = [trial(9, 0.5, 1.0, state="running"), replace(FAST, number=8, quality=None)]
    assert sorted(marks(draw([*ROWS, *unfinished]))) == [0, 1, 2, 3]


def test_standings_are_told_apart() -> None:
    found = marks(draw(ROWS))
    assert [found[n][1] for n in range(4)] == [1.0, 1.0, figures.FADED, figures.HOLLOW]
    assert [found[n][0].endswith("-open") for n in range(4)] == [False, False, False, True]


def test_colour_is_the_student_and_symbol_the_scheme() -> None:
    found = marks(draw(ROWS))
    assert found[1][2] == found[2][2] != found[0][2]
    assert found[0][0] == found[2][0] != found[1][0]
    assert {mark[2] for mark in found.values()} <= set(palette.OKABE_ITO)


def test_the_front_is_a_step_line_from_the_fastest_to_the_edge() -> None:
    front = trace(draw(ROWS), "front")
    assert front.line.shape == "hv"
    assert list(front.x)[:2] == [0.1, 1.0]
    assert list(front.y) == [0.80, 0.90, 0.90]
    assert front.x[2] > 9.0


def test_a_budget_leaves_out_before_the_front_is_drawn_and_shades_the_rest() -> None:
    figure = draw(ROWS, within_ms=0.5)
    assert list(trace(figure, "front").y) == [0.80, 0.80]
    assert marks(figure)[1][0].endswith("-open")
    (shade,) = [s for s in figure.layout.shapes if s.type == "rect"]
    assert shade.x0 == 0.5
    assert shade.x1 > 9.0


def test_the_teacher_is_a_star_where_it_was_measured() -> None:
    star = trace(draw(ROWS, replace(STUDY, teacher=TEACHER)), "teacher")
    assert (star.marker.symbol, list(star.x), list(star.y)) == ("star", [20], [0.9])
    median = replace(STUDY, teacher=TEACHER, latency_name="p50_ms")
    assert list(trace(draw(ROWS, median), "teacher").x) == [15]


def test_a_teacher_without_a_latency_is_a_line_only() -> None:
    figure = draw(ROWS, replace(STUDY, teacher=replace(TEACHER, latency=None)))
    assert [s.y0 for s in figure.layout.shapes if s.type == "line"] == [0.9]
    assert "teacher" not in {t.name for t in figure.data}


def test_axes_say_what_they_are() -> None:
    layout = draw(ROWS).layout
    assert (layout.xaxis.type, layout.xaxis.title.text) == ("log", "latency, p90 (ms, log)")
    assert layout.yaxis.title.text == "quality (f1:spam)"


def test_nothing_feasible_has_no_front() -> None:
    assert "front" not in {t.name for t in draw([SLOW]).data}


def test_many_points_are_drawn_by_webgl() -> None:
    many = [trial(n, 0.5, 1.0 + n) for n in range(figures.MAX_SVG_POINTS + 1)]
    assert trace(draw(many), "bag").type == "scattergl"
    assert trace(draw(many[:-1]), "bag").type == "scatter"


@pytest.mark.parametrize("names", [["b", "a", "a"], ["a", "b"]])
def test_codes_do_not_depend_on_the_order(names: list[str]) -> None:
    assert palette.codes(names, ("x", "y")) == {"a": "x", "b": "y"}


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 100), st.booleans()), min_size=1, max_size=30),
    st.none() | st.floats(0.001, 100),
)
def test_standings_agree_with_the_front(
    drawn: list[tuple[float, float, bool]], within_ms: float | None
) -> None:
    rows = [trial(n, quality, ms, feasible=ok) for n, (quality, ms, ok) in enumerate(drawn)]
    front = {row.number for row in reads.front(rows, within_ms=within_ms)}
    shown = figures.points(rows, front=reads.front(rows, within_ms=within_ms), within_ms=within_ms)
    assert {p.row.number for p in shown if p.standing == "front"} == front
    assert all(within_ms is None or p.latency_ms <= within_ms for p in shown if p.feasible)
