"""How the front grew: its area over trials or hours, and the front at an earlier time beside today's."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.axes import lay_out
from dashboard.figures.palette import GREY, OKABE_ITO, WARM, Ink, text
from dashboard.progress import Progress, front_of
from kdsearch.store.columns import Flags, TrialColumns
from kdsearch.store.reads import StudyRow

Over = Literal["trials", "time"]
MOST_POINTS = 1500
"""Of the cloud behind the fronts; the fronts themselves are whole."""
HOUR_S = 3600.0
MOST_MINUTES = 180
"""Above so many minutes an axis counts hours."""


def hypervolume(progress: Progress, *, over: Over, since: datetime, until: int | None = None) -> go.Figure:
    """Area under the front as a step line; `until` marks how many trials had finished at the chosen time."""
    ends = progress.until or since
    in_hours = (ends - since).total_seconds() > MOST_MINUTES * 60
    scale = HOUR_S if in_hours else 60.0
    passed = [(step.at - since).total_seconds() / scale for step in progress.steps]
    figure = go.Figure()
    if over == "trials":
        _add_steps(
            figure, progress, [float(step.finished) for step in progress.steps], float(progress.finished)
        )
    else:
        _add_steps(figure, progress, passed, (ends - since).total_seconds() / scale)
    if until is not None and over == "trials":
        figure.add_vline(x=until, line={"dash": "dot", "color": WARM, "width": 2})
    unit = f"{'hours' if in_hours else 'minutes'} since the study began, with its teacher's preparation"
    lay_out(figure, x="trials finished" if over == "trials" else unit, y="area under the front, of today's")
    figure.update_yaxes(tickformat=".0%", range=[0, 1.05])
    return figure


def _add_steps(figure: go.Figure, progress: Progress, x: list[float], end: float) -> None:
    areas = [step.area for step in progress.steps]
    figure.add_scatter(
        x=[0.0, *x, end],
        y=[0.0, *areas, areas[-1] if areas else 0.0],
        mode="lines",
        line={"shape": "hv", "color": OKABE_ITO[0], "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=x,
        y=areas,
        mode="markers",
        marker={"color": OKABE_ITO[0], "size": 7},
        customdata=[[step.number, step.finished] for step in progress.steps],
        hovertemplate="trial %{customdata[0]}, number %{customdata[1]} to finish: %{y:.1%} of today's area"
        "<extra></extra>",
        showlegend=False,
    )


def front_at(study: StudyRow, trials: TrialColumns, then: Flags, *, ink: Ink) -> go.Figure:
    """The students of that time as dots, their front as a strong line, today's front as a dotted one."""
    figure = go.Figure()
    latencies = getattr(trials, study.latency_name)
    places = np.flatnonzero(then & np.isfinite(trials.quality) & np.isfinite(latencies))
    cloud = places[:: max(1, -(-len(places) // MOST_POINTS))]
    figure.add_scatter(
        x=latencies[cloud],
        y=trials.quality[cloud],
        mode="markers",
        marker={"color": GREY, "size": 6, "opacity": 0.45},
        name="finished by then",
        customdata=trials.number[cloud],
        hovertemplate="trial %{customdata}<br>quality %{y:.4f}<br>latency %{x:.3g} ms<extra></extra>",
    )
    known = latencies[np.isfinite(latencies)]
    edge = float(known.max()) * 1.5 if len(known) else 1.5
    earlier = trials.where(then)
    _add_front(figure, study, trials, edge, name="front today", colour=GREY, dash="dot")
    _add_front(figure, study, earlier, edge, name="front at that time", colour=ink.line, dash="solid")
    percentile = study.latency_name.removesuffix("_ms")
    lay_out(
        figure, x=f"latency, {percentile} (ms, log)", y=f"quality ({text(study.quality_name)})", height=420
    )
    figure.update_layout(uirevision=study.name)
    figure.update_xaxes(type="log", dtick="D2", minexponent=2)
    figure.update_yaxes(range=_first_view(study, trials, earlier))
    return figure


def _first_view(study: StudyRow, *of: TrialColumns) -> list[float] | None:
    """Qualities about the fronts: students far below are found by a double click, and squeeze nothing."""
    fronts = [trials.quality[front_of(trials, study.latency_name)] for trials in of]
    qualities = np.concatenate(fronts)
    if not len(qualities):
        return None
    low, high = float(qualities.min()), float(qualities.max())
    room = max(0.02, 0.5 * (high - low))
    return [low - room, high + 0.2 * room]


def _add_front(
    figure: go.Figure,
    study: StudyRow,
    trials: TrialColumns,
    edge: float,
    *,
    name: str,
    colour: str,
    dash: str,
) -> None:
    front = front_of(trials, study.latency_name)
    if not front:
        return
    best = front[-1]
    figure.add_scatter(
        x=[*getattr(trials, study.latency_name)[front].tolist(), edge],
        y=[*trials.quality[front].tolist(), float(trials.quality[best])],
        mode="lines+markers",
        line={"shape": "hv", "color": colour, "dash": dash, "width": 2},
        marker={"size": [8] * len(front) + [0]},
        customdata=trials.number[[*front, best]],
        name=name,
        hovertemplate="trial %{customdata}<br>quality %{y:.4f}<br>latency %{x:.3g} ms<extra></extra>",
    )
