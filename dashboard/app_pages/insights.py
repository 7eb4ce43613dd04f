"""The Insights page: how the search went, which parameters matter, what distilling gained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import streamlit as st

from dashboard import cached, frame, gains, parameters, progress, wording
from dashboard.app_pages.parts import filters
from dashboard.figures import gains as gain_figures
from dashboard.figures import growth
from dashboard.figures import parameters as figures
from dashboard.figures.palette import CHART_CONFIG
from dashboard.parameters import Setting
from dashboard.queries.studies import Snapshot

VIEWS = ("Progress", "Parameters", "λ and T", "Gain")
GAIN_COLUMNS = {name: st.column_config.NumberColumn(format="%+.4f") for name in ("gain", "low", "high")}


def show() -> None:
    """Draw the page."""
    frame.page("Insights", _draw)


def _draw(snapshot: Snapshot) -> None:
    if not snapshot.trials.complete.any():
        st.info(
            "No trial is complete yet. More workers make it faster: "
            f"`kdsearch worker start --study {snapshot.study.name}`"
        )
        return
    asked = st.segmented_control(
        "View",
        VIEWS,
        default=VIEWS[0],
        required=True,
        key="view",
        bind="query-params",
        label_visibility="collapsed",
    )
    draw: Mapping[str, Callable[[Snapshot], None]] = {
        "Progress": _show_progress,
        "Parameters": _show_parameters,
        "λ and T": _show_grid,
        "Gain": _show_gain,
    }
    draw[str(asked)](snapshot)


# ---------------------------------------------------------------- how the search went


def _show_progress(snapshot: Snapshot) -> None:
    study, trials = snapshot.study, snapshot.trials
    grown = progress.of(study, trials)
    moment, axis = st.columns([4, 1], vertical_alignment="bottom")
    with moment:
        until = _ask_moment(grown.finished)
    over = axis.segmented_control(
        "Growth over", ("trials", "time"), default="trials", required=True, key="over", bind="query-params"
    )
    left, right = st.columns(2)
    with left:
        st.subheader("Hypervolume")
        figure = growth.hypervolume(
            grown, over="time" if over == "time" else "trials", since=study.created_at, until=until
        )
        words = "Area under the front after each trial that made it grow, as a share of today's area."
        st.plotly_chart(figure, key="hypervolume", config=CHART_CONFIG, alt=words)
        st.caption(_reference(grown))
    with right:
        st.subheader("Front at an earlier time")
        then = progress.by_then(trials, until)
        figure = growth.front_at(study, trials, then, ink=frame.ink())
        words = "The front after so many trials as a solid line, today's as a dotted one."
        st.plotly_chart(figure, key="front_at", config=CHART_CONFIG, alt=words)
        st.caption(
            f"The front after {wording.plural(until, 'finished trial')} of {grown.finished:,}. "
            "A double click shows students far below it."
        )


def _ask_moment(finished: int) -> int:
    if finished < 2:
        return finished
    asked: int = st.slider(
        "Look at the front after so many finished trials",
        min_value=1,
        max_value=finished,
        value=finished,
        key="until",
        bind="query-params",
    )
    return asked


def _reference(grown: progress.Progress) -> str:
    if grown.reference is None:
        return "No student can be deployed yet: nothing feasible is complete."
    quality, ms = grown.reference
    return (
        f"In the plane of quality and log latency, above quality {quality:.4f} and below {ms:.3g} ms. "
        "A flat end means that the last trials added nothing."
    )


# ---------------------------------------------------------------- parameters


def _show_parameters(snapshot: Snapshot) -> None:
    rows = filters.ask(_settings(snapshot))
    _show_importance(snapshot)
    if not rows:
        st.info("No complete trial is like that.")
        return
    front = [
        int(snapshot.trials.number[i])
        for i in progress.front_of(snapshot.trials, snapshot.study.latency_name)
    ]
    st.subheader("Slices")
    figure = figures.slices(snapshot.study, rows, keep=front)
    if figure is None:
        st.info("These trials do not differ in any parameter.")
        return
    words = "Quality over each parameter, a chart each; colour is the student, the symbol the scheme."
    st.plotly_chart(figure, key="slices", config=CHART_CONFIG, alt=words)
    _say_thinned(len(rows), figures.MOST_IN_SLICES)
    st.subheader("Parallel coordinates")
    lines = figures.parallel(snapshot.study, rows, keep=front, ink=frame.ink())
    if lines is None:
        st.info("None of these trials was measured.")
        return
    words = "A line per trial through its parameters, its latency and its quality; the colour is quality."
    st.plotly_chart(lines, key="parallel", config=CHART_CONFIG, alt=words)
    st.caption("Drag along an axis to highlight trials. The filters above decide which ones are drawn.")
    _say_thinned(len(rows), figures.MOST_LINES)


def _settings(snapshot: Snapshot) -> list[Setting]:
    params = cached.load_params(snapshot)
    return parameters.settings(snapshot.trials, params, snapshot.study.latency_name)


def _say_thinned(num: int, most: int) -> None:
    if num > most:
        st.caption(f"{most:,} of {num:,} trials are drawn: the front, and the others evenly over the study.")


def _show_importance(snapshot: Snapshot) -> None:
    st.subheader("Importance")
    found = cached.load_importances(snapshot)
    if not found:
        st.info(
            "Not worked out yet. A worker does it while the study runs and at its end: "
            f"`kdsearch worker start --study {snapshot.study.name}`"
        )
        return
    names = {"quality": snapshot.study.quality_name, "latency": snapshot.study.latency_name.replace("_", " ")}
    shares = {names.get(row.objective, row.objective): row.importances for row in found}
    words = "Importance of each parameter for quality and for latency, as shares of all."
    st.plotly_chart(figures.importance(shares), key="importance", config=CHART_CONFIG, alt=words)
    at = max(row.at for row in found)
    st.caption(
        f"Over {wording.plural(max(row.num_trials for row in found), 'complete trial')}, worked out "
        f"{at:%Y-%m-%d %H:%M} UTC; for the whole study, whatever the filters say. The shares of an "
        "objective sum to one; parameters below half a percent are left out."
    )


# ---------------------------------------------------------------- λ and T


def _show_grid(snapshot: Snapshot) -> None:
    st.subheader("Quality over λ and T")
    rows = _settings(snapshot)
    schemes = parameters.distilling(rows)
    if not schemes:
        st.info("No complete trial has a λ.")
        return
    columns = st.columns(4)
    scheme = str(columns[0].selectbox("Scheme", schemes, key="scheme", bind="query-params"))
    own = [row for row in rows if row.scheme == scheme]
    own = filters.one_of(columns[1], "Student", own, lambda row: row.student, key="student")
    own = filters.one_of(
        columns[2], "Loss", own, lambda row: str(row.params.get(f"{scheme}.loss", "")), key="loss"
    )
    which = columns[3].selectbox("Of each cell", ("mean", "best"), key="cell", bind="query-params")
    found = parameters.grid(own, scheme)
    if found is None:
        st.info("No complete trial is like that.")
        return
    figure = figures.heat_map(found, which=str(which), quality_name=snapshot.study.quality_name)
    words = "Quality over λ and the temperature; every cell says its figure and its number of trials."
    st.plotly_chart(figure, key="grid", config=CHART_CONFIG, alt=words)
    st.caption(
        f"{wording.plural(len(own), 'complete trial')}, which differ in other parameters, too: a cell "
        "with few of them says little. Students differ the most: pick one. A loss without a temperature "
        "(MSE) is in the row “none”."
    )


# ---------------------------------------------------------------- what distilling gained


def _show_gain(snapshot: Snapshot) -> None:
    st.subheader("Gain over training without the teacher")
    found = gains.gains(snapshot.trials, snapshot.standings)
    if not found:
        st.info("Some student needs a complete trial of `none` and one of another scheme.")
        return
    figure = gain_figures.gains(snapshot.study, found)
    words = "Quality of the best student of each scheme minus the best one trained without the teacher."
    st.plotly_chart(figure, key="gain", config=CHART_CONFIG, alt=words)
    st.dataframe(_gain_rows(found), hide_index=True, column_config=GAIN_COLUMNS, alt="The gains as a table.")
    if any(gain.low is None for gain in found):
        st.caption(
            "Hollow marks are one training each: the difference may be the luck of a seed. The best of more "
            "trials is also luckier than the best of few, see the columns “best of”."
        )
    if any(gain.low is not None for gain in found):
        st.caption(
            "Intervals follow from those of the two trials as if they were independent; the same validation "
            "rows make them rather too wide."
        )
    st.caption("On the same rows, by a paired bootstrap:")
    st.code(f"kdsearch study report {snapshot.study.name}", language="bash")


def _gain_rows(found: list[gains.Gain]) -> list[dict[str, object]]:
    return [
        {
            "student": gain.student,
            "scheme": gain.scheme,
            "gain": gain.gain,
            "low": np.nan if gain.low is None else gain.low,
            "high": np.nan if gain.high is None else gain.high,
            "trial": gain.trial,
            "best of": gain.tried,
            "control": gain.control,
            "best of controls": gain.tried_control,
            "trainings each": gain.seeds,
        }
        for gain in found
    ]


if __name__ == "__main__":
    show()
