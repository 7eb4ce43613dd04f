"""Charts from rows: pure functions to Plotly figures, no database and no Streamlit.

Colour says the student (Okabe-Ito, told apart with any colour vision), the symbol says the scheme,
so that the chart also reads in grey. Every point carries its trial number as ``customdata``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboard.figures.palette import GREY, OKABE_ITO, SYMBOLS, codes
from kdsearch.store.reads import StudyRow, TrialRow

FADED = 0.35
HOLLOW = 0.7
"""An outline alone is faint already."""
MAX_SVG_POINTS = 1000
"""Above this many points in one trace the chart is drawn by WebGL."""

HOVER = (
    "trial %{customdata[0]}: %{customdata[1]}, %{customdata[2]}<br>"
    "quality %{y:.4f}<br>latency %{x:.3g} ms<br>size %{customdata[3]}<br>%{customdata[4]}<extra></extra>"
)


@dataclass(frozen=True)
class Point:
    """A finished trial as drawn."""

    row: TrialRow
    quality: float
    latency_ms: float
    feasible: bool
    """Within the study's own limits and the budget asked for."""
    on_front: bool

    @property
    def standing(self) -> str:
        """In a word, for tooltips and the table."""
        if not self.feasible:
            return "over limit"
        return "front" if self.on_front else "dominated"


def points(rows: Sequence[TrialRow], *, front: Sequence[TrialRow], within_ms: float | None) -> list[Point]:
    """The trials that have both a quality and a latency, in the rows' order."""
    numbers = {row.number for row in front}
    return [
        Point(
            row=row,
            quality=row.quality,
            latency_ms=row.latency_ms,
            feasible=row.feasible and (within_ms is None or row.latency_ms <= within_ms),
            on_front=row.number in numbers,
        )
        for row in rows
        if row.state == "complete" and row.quality is not None and row.latency_ms is not None
    ]


def pareto(study: StudyRow, shown: Sequence[Point], *, within_ms: float | None) -> go.Figure:
    """Quality against latency: front as a step line, the rest faded, teacher as a star."""
    figure = go.Figure()
    schemes = codes([p.row.scheme for p in shown], SYMBOLS)
    edge = _right_edge(study, shown, within_ms)
    _add_front(figure, [p for p in shown if p.on_front], edge)
    for student, colour in codes([p.row.student for p in shown], OKABE_ITO).items():
        _add_student(figure, student, [p for p in shown if p.row.student == student], colour, schemes)
    for scheme, symbol in schemes.items():
        _add_scheme_key(figure, scheme, symbol)
    _add_teacher(figure, study)
    if within_ms is not None:
        _shade_over_budget(figure, within_ms, edge)
    _lay_out(figure, study)
    return figure


def _right_edge(study: StudyRow, shown: Sequence[Point], within_ms: float | None) -> float:
    latencies = [p.latency_ms for p in shown]
    if study.teacher is not None and study.teacher.latency is not None:
        latencies.append(study.teacher.latency.at(study.latency_name))
    if within_ms is not None:
        latencies.append(within_ms)
    return max(latencies, default=1.0) * 1.5


def _add_front(figure: go.Figure, front: Sequence[Point], edge: float) -> None:
    if not front:
        return
    steps = sorted(front, key=lambda p: p.latency_ms)
    figure.add_scatter(
        x=[p.latency_ms for p in steps] + [edge],
        y=[p.quality for p in steps] + [steps[-1].quality],
        mode="lines",
        line={"shape": "hv", "color": GREY, "width": 2},
        name="front",
        hoverinfo="skip",
    )


def _add_student(
    figure: go.Figure, student: str, own: Sequence[Point], colour: str, schemes: dict[str, str]
) -> None:
    kind = go.Scattergl if len(own) > MAX_SVG_POINTS else go.Scatter
    marker = {
        "color": colour,
        "size": [13 if p.on_front else 9 for p in own],
        "opacity": [1.0 if p.on_front else FADED if p.feasible else HOLLOW for p in own],
        "symbol": [schemes[p.row.scheme] + ("" if p.feasible else "-open") for p in own],
    }
    figure.add_trace(
        kind(
            x=[p.latency_ms for p in own],
            y=[p.quality for p in own],
            mode="markers",
            marker=marker,
            name=student,
            legendgroup="students",
            legendgrouptitle_text="Student",
            showlegend=False,
            customdata=[[p.row.number, student, p.row.scheme, _size(p.row), p.standing] for p in own],
            hovertemplate=HOVER,
        )
    )
    _add_key(figure, student, group="students", title="Student", marker={"color": colour, "symbol": "circle"})


def _add_scheme_key(figure: go.Figure, scheme: str, symbol: str) -> None:
    _add_key(figure, scheme, group="schemes", title="Scheme", marker={"color": GREY, "symbol": symbol})


def _add_key(figure: go.Figure, name: str, *, group: str, title: str, marker: dict[str, str]) -> None:
    """A line of the legend: points themselves carry two codes, which a legend cannot show at once."""
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={**marker, "size": 10},
        name=name,
        legendgroup=group,
        legendgrouptitle_text=title,
        hoverinfo="skip",
    )


def _add_teacher(figure: go.Figure, study: StudyRow) -> None:
    teacher = study.teacher
    if teacher is None:
        return
    dotted = {"dash": "dot", "color": GREY, "width": 1}
    figure.add_shape(
        type="line", xref="paper", x0=0, x1=1, y0=teacher.quality, y1=teacher.quality, line=dotted
    )
    if teacher.latency is None:
        return
    latency_ms = teacher.latency.at(study.latency_name)
    figure.add_shape(type="line", yref="paper", x0=latency_ms, x1=latency_ms, y0=0, y1=1, line=dotted)
    figure.add_scatter(
        x=[latency_ms],
        y=[teacher.quality],
        mode="markers",
        marker={"symbol": "star", "size": 16, "color": "black", "line": {"color": "white", "width": 1}},
        name="teacher",
        hovertemplate="teacher<br>quality %{y:.4f}<br>latency %{x:.3g} ms<extra></extra>",
    )


def _shade_over_budget(figure: go.Figure, within_ms: float, edge: float) -> None:
    figure.add_shape(
        type="rect", yref="paper", x0=within_ms, x1=edge, y0=0, y1=1,
        fillcolor=GREY, opacity=0.12, line_width=0, layer="below",
    )  # fmt: skip


def _lay_out(figure: go.Figure, study: StudyRow) -> None:
    percentile = study.latency_name.removesuffix("_ms")
    figure.update_layout(
        xaxis={"type": "log", "title": f"latency, {percentile} (ms, log)", "dtick": "D2", "minexponent": 2},
        yaxis={"title": f"quality ({study.quality_name})"},
        hovermode="closest",
        uirevision=study.name,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=520,
        legend={"groupclick": "toggleitem"},
    )


def _size(row: TrialRow) -> str:
    return "unknown" if row.size_mb is None else f"{row.size_mb:.2f} MB"
