"""The charts of Trial, Insights and Compare say what the rows say; ten thousand trials stay small."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import gains, parameters, progress
from dashboard.confusion import Confusion
from dashboard.figures import confusion as confusions
from dashboard.figures import curves, growth, latencies
from dashboard.figures import gains as gain_figures
from dashboard.figures import parameters as figures
from dashboard.figures.curves import Curve
from dashboard.figures.palette import LIGHT, WARM
from dashboard.parameters import Setting
from kdsearch.core.records import Decision, HardwareProfile, Latency, Scores
from kdsearch.store.columns import TrialColumns
from kdsearch.store.reads import EpochRow, StudyRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STUDY = StudyRow(
    id=1, name="sms", state="open", error=None, spec={}, spec_text="", spec_sha256="", data_fingerprint="",
    artifacts_url="", counts={}, budget_trials=10, budget_hours=None, budget_failed=1, active_seconds=0.0,
    prepared=None, teacher=None, quality_name="f1:spam", latency_name="p90_ms", created_at=NOW,
)  # fmt: skip
MANY = 10_000
MOST_BYTES = 1_000_000
PROFILE = HardwareProfile(
    device_model="a machine", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
)
LATENCY = Latency(
    p50_ms=1, p90_ms=2, p99_ms=4, mean_ms=1, num_queries=9, seconds=1, size_mb=1, num_params=9,
    tokenize_p50_ms=0, noisy=False, profile=PROFILE,
)  # fmt: skip


def scores(quality: float) -> Scores:
    return Scores(quality=quality, accuracy=quality, macro_f1=quality, nll=0.1, recall={})


def epoch(number: int, quality: float | None) -> EpochRow:
    found = None if quality is None else scores(quality)
    losses = {"total": 1.0, "hard": 0.4, "soft": 0.6}
    return EpochRow(
        epoch=number, stage="student", rows_seen=10, losses=losses, scores=found, seconds=1, at=NOW
    )


def names(figure: go.Figure) -> list[str]:
    return [trace.name for trace in figure.data]


# ---------------------------------------------------------------- curves


def test_a_curve_has_the_teacher_the_rungs_and_the_decisions() -> None:
    rows = [epoch(1, None), epoch(2, 0.7), epoch(3, 0.8)]
    inputs = {"forecast_mean": 0.8, "forecast_upper": 0.82, "staircase": 0.9}
    pause = Decision(action="pause", rule="front", reason="<b>up to</b>", epoch=3, inputs=inputs)
    figure = curves.learning(
        [Curve("trial 1", rows, 3)], metric="quality", title="f1", teacher=scores(0.95), rungs=[2], ink=LIGHT,
        decisions=[pause],
    )  # fmt: skip
    assert names(figure) == ["trial 1", "decided: pause", "forecast of its end, with the upper bound"]
    assert list(figure.data[0].x) == [2, 3]
    assert list(figure.data[0].marker.size) == [7, 13]
    assert figure.data[1].marker.color == WARM
    assert "<b>" not in str(figure.data[1].customdata)
    words = [note.text for note in figure.layout.annotations]
    assert words == ["rung 2", "teacher 0.9500", "needed for the front 0.9000"]
    assert figure.data[2].error_y.array[0] == pytest.approx(0.02)


def test_compared_curves_differ_in_more_than_colour() -> None:
    drawn = [Curve(f"trial {n}", [epoch(1, 0.5)]) for n in range(4)]
    figure = curves.learning(drawn, metric="accuracy", title="accuracy", teacher=None, ink=LIGHT)
    assert len({(trace.line.dash, trace.marker.symbol) for trace in figure.data}) == 4


def test_a_figure_that_was_not_scored_draws_nothing() -> None:
    figure = curves.learning(
        [Curve("t", [epoch(1, 0.5)])], metric="coverage", title="c", teacher=None, ink=LIGHT
    )
    assert len(figure.data) == 0


def test_losses_have_their_terms_where_there_are_several() -> None:
    assert names(curves.losses([epoch(1, 0.5)])) == ["total", "hard", "soft"]


# ---------------------------------------------------------------- mistakes and latency


def test_a_matrix_carries_shares_and_counts() -> None:
    found = Confusion(("<ham>", "spam"), np.array([[8, 2], [0, 0]]))
    (heat,) = confusions.matrix(found).data
    assert np.asarray(heat.z).tolist() == [[0.8, 0.2], [0.0, 0.0]]
    assert np.asarray(heat.customdata).tolist() == [[8, 2], [0, 0]]
    assert list(heat.x) == ["&lt;ham&gt;", "spam"]


def test_a_difference_is_in_points_and_even_about_zero() -> None:
    one = Confusion(("a", "b"), np.array([[8, 2], [5, 5]]))
    other = Confusion(("a", "b"), np.array([[9, 1], [5, 5]]))
    (heat,) = confusions.difference(one, other, names=("trial 1", "trial 2")).data
    assert np.asarray(heat.z).tolist() == [[10.0, -10.0], [0.0, 0.0]]
    assert heat.zmin == -heat.zmax


def test_many_classes_show_their_lowest_recalls() -> None:
    own = {f"class {i}": i / 150 for i in range(150)}
    bars = confusions.recalls(own, own).data[0]
    assert list(bars.x) == sorted(own.values())[: confusions.MOST_BARS]


def test_a_latency_rises_from_the_fastest_query_to_the_slowest() -> None:
    x, y = latencies.steps(LATENCY)
    assert (x, y) == ([1, 2, 4], [0.5, 0.9, 0.99])
    figure = latencies.spread({"trial 1": LATENCY}, marked=True)
    assert [note.text for note in figure.layout.annotations] == ["p50 1 ms", "p90 2 ms", "p99 4 ms"]
    assert figure.layout.xaxis.type == "log"


# ---------------------------------------------------------------- insights


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 10), min_size=1))
def test_importances_of_an_objective_sum_to_one(found: dict[str, float]) -> None:
    whole = sum(figures.normal(found).values())
    assert whole == pytest.approx(1.0) if sum(found.values()) > 0 else whole == 0.0


def test_importance_has_a_bar_per_parameter_and_objective() -> None:
    figure = figures.importance({"f1:spam": {"lr": 3.0, "a": 1.0}, "p90 ms": {"a": 2.0, "b": 0.001}})
    assert names(figure) == ["f1:spam", "p90 ms"]
    assert [list(bar.y) for bar in figure.data] == [["a", "lr"], ["a", "lr"]]
    assert [list(bar.x) for bar in figure.data] == [[0.25, 0.75], [pytest.approx(1.0, abs=1e-3), 0.0]]
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 2


def many() -> tuple[TrialColumns, list[Setting]]:
    """Ten thousand trials, a column a figure and a setting each."""
    rng = np.random.default_rng(1)
    floats = {
        n: rng.uniform(0.1, 1, MANY) for n, kind in TrialColumns.__annotations__.items() if kind == "Floats"
    }
    students = np.array(["textcnn", "bilstm", "bag"], object)[np.arange(MANY) % 3]
    schemes = np.array(["none", "offline"], object)[np.arange(MANY) % 2]
    trials = TrialColumns(
        **{
            **floats,
            "number": np.arange(MANY),
            "state": np.full(MANY, "complete", object),
            "origin": np.full(MANY, "sampler", object),
            "student": students,
            "scheme": schemes,
            "noisy": np.zeros(MANY, bool),
            "feasible": np.ones(MANY, bool),
            "epochs_run": np.ones(MANY, int),
            "finished_at": np.array([NOW + timedelta(seconds=i) for i in range(MANY)], object),
        }
    )
    params: dict[int, Any] = {
        n: {
            "student": students[n],
            "scheme": schemes[n],
            "learning_rate": 10 ** rng.uniform(-4, -2),
            "batch_size": int(rng.choice([32, 64])),
            f"{students[n]}.hidden": int(rng.choice([32, 64, 128])),
            "kernel_sizes": (2, 3),
            **({"offline.lambda": rng.uniform(), "offline.temperature": rng.uniform(1, 9)} if n % 2 else {}),
        }
        for n in range(MANY)
    }
    return trials, parameters.settings(trials, params, "p90_ms")


def size(*drawn: go.Figure | None) -> int:
    return sum(len(figure.to_json()) for figure in drawn if figure is not None)


def test_ten_thousand_trials_stay_under_a_megabyte_a_page() -> None:
    trials, rows = many()
    assert len(rows) == MANY
    front = trials.number[progress.front_of(trials, "p90_ms")].tolist()
    slices = figures.slices(STUDY, rows, keep=front)
    lines = figures.parallel(STUDY, rows, keep=front, ink=LIGHT)
    assert slices is not None and lines is not None
    drawn = {int(n) for trace in slices.data if trace.customdata is not None for n in trace.customdata}
    assert set(front) <= drawn
    assert len(lines.data[0].dimensions[0]["values"]) == figures.MOST_LINES
    assert size(slices, lines) < MOST_BYTES
    grown = progress.of(STUDY, trials)
    then = progress.by_then(trials, MANY)
    both = (
        growth.hypervolume(grown, over="trials", since=NOW),
        growth.front_at(STUDY, trials, then, ink=LIGHT),
    )
    assert size(*both) < MOST_BYTES
    grid = parameters.grid(rows, "offline")
    assert grid is not None
    assert size(figures.heat_map(grid, which="mean", quality_name="f1")) < MOST_BYTES
    assert size(gain_figures.gains(STUDY, gains.gains(trials, {}))) < MOST_BYTES


def test_students_far_below_do_not_squeeze_the_fronts() -> None:
    trials, _ = many()
    trials.quality[:5], trials.p90_ms[:5] = -9.0, 9.0
    then = progress.by_then(trials, 100)
    low, high = growth.front_at(STUDY, trials, then, ink=LIGHT).layout.yaxis.range
    for columns in (trials, trials.where(then)):
        front = columns.quality[progress.front_of(columns, "p90_ms")]
        assert low < front.min() and front.max() < high
    assert low > -1.0


def test_slices_tell_students_and_schemes_apart() -> None:
    _, rows = many()
    figure = figures.slices(STUDY, rows[:60], keep=[])
    assert figure is not None
    shown = [trace for trace in figure.data if trace.showlegend]
    assert sorted(trace.name for trace in shown) == ["bag", "bilstm", "textcnn"]
    assert len({trace.marker.color for trace in shown}) == 3
    symbols = {symbol for trace in figure.data if trace.x[0] is not None for symbol in trace.marker.symbol}
    keys = {trace.name: trace.marker.symbol for trace in figure.data if trace.x[0] is None}
    assert set(keys) == {"none", "offline"}
    assert symbols == set(keys.values())


def test_a_conditional_parameter_that_is_absent_runs_apart() -> None:
    _, rows = many()
    figure = figures.parallel(STUDY, rows[:40], keep=[], ink=LIGHT)
    assert figure is not None
    axes = {axis.label: axis for axis in figure.data[0].dimensions}
    axis = axes["offline.temperature (log)"]
    assert axis.ticktext[0] == figures.ABSENT
    assert min(axis["values"]) == axis.tickvals[0] < axis.tickvals[1]


def test_trials_that_differ_in_nothing_have_no_slices() -> None:
    rows = [Setting(n, "bag", "none", 0.5, 1.0, {"learning_rate": 0.1}) for n in range(3)]
    assert figures.slices(STUDY, rows, keep=[]) is None


def test_a_gain_without_an_interval_is_hollow() -> None:
    gain = gains.Gain(
        student="bag", scheme="offline", gain=0.1, low=None, high=None, trial=2, control=0, tried=2,
        tried_control=1, seeds=1,
    )  # fmt: skip
    marks = [trace for trace in gain_figures.gains(STUDY, [gain]).data if trace.mode == "markers"]
    assert [mark.marker.symbol.endswith("-open") for mark in marks] == [True]
    assert marks[0].error_x.array is None
