"""The Pareto page: which student is best within a latency budget, and what it is chosen from."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from dashboard import frame, front, wording
from dashboard.app_pages.parts.chosen import card
from dashboard.figures import palette
from dashboard.figures import pareto as figures
from dashboard.front import COSTS, QUALITIES, STATES, Drawn, View
from dashboard.queries import studies
from dashboard.queries.studies import Snapshot

CHART_CONFIG = {**palette.CHART_CONFIG, "toImageButtonOptions": {"filename": "pareto", "scale": 2}}
CHART_ALT = "Quality against latency of every finished trial; the table below it holds the same figures."
TABLE_ALT = "The trials of the chart: the front first, the best of it on top."
MAX_ROWS = 300
ANY = "any"


def show() -> None:
    """Draw the page, or the sentence that says why it cannot be drawn."""
    frame.page("Pareto front", _draw)


def _draw(snapshot: Snapshot) -> None:
    view = _ask(snapshot)
    drawn = front.drawn(snapshot, view)
    if not snapshot.trials.complete.any():
        name = snapshot.study.name
        st.info(f"No finished trial yet. More workers: `kdsearch worker start --study {name}`")
        if not len(drawn.trials):
            return
    elif not drawn.finished.any():
        st.info("No trial is left by the filters.")
    chart, beside = st.columns([3, 2], gap="medium")
    picked = frame.picked_trial()
    figure = figures.pareto(drawn, ink=frame.ink(), picked=picked)
    with chart:
        st.plotly_chart(
            figure,
            key="chart",
            config=CHART_CONFIG,
            alt=CHART_ALT,
            on_select=_pick_from_chart,
            selection_mode="points",
        )
        _say_what_is_left_out(drawn)
    with beside:
        _show_students(drawn)
    _show_table(drawn, figure)


def _say_what_is_left_out(drawn: Drawn) -> None:
    dominated = drawn.inside.copy()
    dominated[list(drawn.front)] = False
    shown = int(figures.thinned(drawn, dominated).sum())
    if shown < dominated.sum():
        st.caption(
            f"Of {dominated.sum():,} dominated trials {shown:,} are drawn, the best at each place; "
            "the file below holds all of them."
        )


# ---------------------------------------------------------------- what is asked for


def _ask(snapshot: Snapshot) -> View:
    study = snapshot.study
    with st.container(horizontal=True, vertical_alignment="bottom"):
        within_ms = _ask_budget(snapshot)
        cost = st.selectbox(
            "Across",
            list(COSTS),
            index=list(COSTS).index(study.latency_name),
            key="x",
            bind="query-params",
            format_func=lambda name: COSTS[name].label,
            width=190,
        )
        quality = st.selectbox(
            "Up",
            list(QUALITIES),
            key="y",
            bind="query-params",
            format_func=lambda name: (
                f"{study.quality_name} (objective)" if name == "quality" else QUALITIES[name].label
            ),
            width=230,
        )
    with st.container(horizontal=True):
        trials = snapshot.trials
        students = _ask_some(
            "Students", "student", sorted({*palette.types(study, "students"), *trials.student})
        )
        schemes = _ask_some("Schemes", "scheme", sorted({*palette.types(study, "schemes"), *trials.scheme}))
        states = _ask_some("States", "state", list(STATES))
    return View(
        quality=QUALITIES[str(quality)],
        cost=COSTS[str(cost)],
        within_ms=within_ms,
        students=students,
        schemes=schemes,
        states=states,
    )


def _ask_some(label: str, key: str, options: list[str]) -> list[str]:
    """None picked means all of them."""
    return list(st.pills(label, options, selection_mode="multi", key=key, bind="query-params") or ())


def _ask_budget(snapshot: Snapshot) -> float | None:
    """The budget, typed or by the slider, which goes as near to what is typed as it can."""
    limit, budgets = studies.limit_ms(snapshot.study), front.budgets(snapshot)
    percentile = snapshot.study.latency_name.removesuffix("_ms")
    slider, box = st.columns([3, 2], vertical_alignment="bottom", width=480)
    with box:
        within: float | None = st.number_input(
            f"Budget (ms, {percentile})",
            min_value=0.0,
            value=None,
            step=0.1,
            format="%.3f",
            key="within",
            bind="query-params",
            placeholder="any" if limit is None else f"limit: {limit:g}",
            help="Slower students are left out before the front is drawn.",
        )
    steps: list[float | str] = [*budgets, ANY]
    st.session_state["slider"] = (
        ANY if within is None else min(budgets, key=lambda ms: abs(ms - within), default=ANY)
    )
    with slider:
        st.select_slider(
            "Latency budget",
            steps,
            key="slider",
            format_func=lambda step: step if step == ANY else f"{step:g} ms",
            on_change=_budget_from_slider,
            disabled=not budgets,
        )
    return within


def _budget_from_slider() -> None:
    step = st.session_state["slider"]
    st.session_state["within"] = None if step == ANY else float(step)


# ---------------------------------------------------------------- clicks


def _pick_from_chart() -> None:
    """The trial of the point clicked; an empty selection is what a redrawn chart says, and means nothing."""
    picked = [_number_of(point) for point in st.session_state["chart"]["selection"]["points"]]
    numbers = [number for number in picked if number is not None]
    if numbers:
        frame.pick("trial", numbers[-1])


def _number_of(point: dict[str, Any]) -> int | None:
    data = point.get("customdata")
    number = data[0] if isinstance(data, (list, tuple)) else data
    return None if number is None else int(number)


def _pick_from_table(numbers: list[int]) -> None:
    rows = st.session_state["table"]["selection"]["rows"]
    if rows:
        frame.pick("trial", numbers[rows[0]])


# ---------------------------------------------------------------- beside and below the chart


def _show_students(drawn: Drawn) -> None:
    """The best within the budget, and the one that was picked."""
    snapshot = drawn.snapshot
    best = None if drawn.best is None else int(drawn.trials.number[drawn.best])
    picked = frame.pick_trial(snapshot, "Trial (click a point or a row, or type its number)")
    if best is None and drawn.finished.any():
        st.warning("No student lies within the budget. Raise it, or let the study try more trials.")
    if picked is not None and picked != best:
        card(snapshot, picked, "Picked")
        if best is not None:
            st.caption(f"Best within the budget: trial {best}")
            st.button(f"Show trial {best}", on_click=frame.pick, args=("trial", best), key="show-best")
    elif best is not None:
        card(snapshot, best, "Best" if drawn.view.within_ms is None else "Best within the budget")


def _show_table(drawn: Drawn, figure: go.Figure) -> None:
    rows = table(drawn)
    shown = {name: values[:MAX_ROWS] for name, values in rows.items()}
    num_rows = len(rows["trial"])
    numbers = [int(number) for number in shown["trial"]]
    st.dataframe(
        shown,
        hide_index=True,
        key="table",
        on_select=lambda: _pick_from_table(numbers),
        selection_mode="single-row",
        column_config=TABLE_CONFIG,
        alt=TABLE_ALT,
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        name = drawn.snapshot.study.name
        st.download_button(
            "CSV",
            data=lambda: wording.as_csv(rows),
            file_name=f"{name}-pareto.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Chart as HTML",
            data=lambda: figure.to_html(include_plotlyjs=True, config=CHART_CONFIG),
            file_name=f"{name}-pareto.html",
            mime="text/html",
            icon=":material/download:",
            on_click="ignore",
        )
        if num_rows > MAX_ROWS:
            st.caption(f"The first {MAX_ROWS} of {num_rows:,}; the file holds all of them.")


TABLE_CONFIG = {
    "quality": st.column_config.NumberColumn(format="%.4f"),
    "accuracy": st.column_config.NumberColumn(format="%.4f"),
    "macro-F1": st.column_config.NumberColumn(format="%.4f"),
    **{f"{p} (ms)": st.column_config.NumberColumn(format="%.3f") for p in ("p50", "p90", "p99")},
    "size (MB)": st.column_config.NumberColumn(format="%.2f"),
}


def table(drawn: Drawn) -> dict[str, Any]:
    """The finished trials of the chart: the front first, the best of it on top."""
    trials, where = drawn.trials, np.flatnonzero(drawn.finished)
    on_front = np.isin(where, list(drawn.front))
    order = where[np.lexsort((-drawn.y[where], ~drawn.inside[where], ~on_front))]
    own = trials.where(order)
    return {
        "trial": own.number,
        "student": own.student,
        "scheme": own.scheme,
        "standing": drawn.standings_of(order),
        "quality": drawn.objective[order],
        "accuracy": own.accuracy,
        "macro-F1": own.macro_f1,
        "p50 (ms)": own.p50_ms,
        "p90 (ms)": own.p90_ms,
        "p99 (ms)": own.p99_ms,
        "size (MB)": own.size_mb,
        "parameters": own.num_params,
        "chosen by": own.origin,
    }


if __name__ == "__main__":
    show()
