"""Confusion matrices as heat maps, their difference, and the recall of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.confusion import Confusion
from dashboard.figures.axes import lay_out
from dashboard.figures.palette import GREY, OKABE_ITO, text

MOST_WRITTEN = 15
"""Above so many classes the cells carry no figures."""
MOST_BARS = 30
"""Above so many classes only those with the lowest recall are drawn."""
SEQUENTIAL = "Cividis_r"
"""Rises evenly in lightness: the same with any colour vision, and in grey."""
DIVERGING = "PuOr"


def matrix(found: Confusion) -> go.Figure:
    """Shares of each true class by colour, counts in the cells."""
    counts, names = found.counts_CC, [text(label) for label in found.labels]
    figure = go.Figure(
        go.Heatmap(
            z=np.round(found.shares, 4),
            x=names,
            y=names,
            zmin=0,
            zmax=1,
            colorscale=SEQUENTIAL,
            customdata=counts,
            colorbar={"title": "share", "tickformat": ".0%"},
            hovertemplate="%{y} taken for %{x}: %{customdata} (%{z:.1%})<extra></extra>",
            text=counts,
            **_written(counts, "%{text}"),
        )
    )
    return _lay_out_matrix(figure, len(names))


def difference(base: Confusion, other: Confusion, *, names: tuple[str, str]) -> go.Figure:
    """Shares of the second trial minus those of the first, in points; the sign stands in the cells."""
    points = np.round(100 * (other.shares - base.shares), 2)
    most = float(np.abs(points).max()) or 1.0
    labels = [text(label) for label in base.labels]
    figure = go.Figure(
        go.Heatmap(
            z=points,
            x=labels,
            y=labels,
            zmin=-most,
            zmax=most,
            colorscale=DIVERGING,
            colorbar={"title": "points"},
            hovertemplate="%{y} taken for %{x}: %{z:+.2f} points<extra></extra>",
            **_written(points, "%{z:+.1f}"),
        )
    )
    figure.update_layout(title={"text": text(f"{names[1]} minus {names[0]}"), "font": {"size": 14}})
    return _lay_out_matrix(figure, len(labels))


def _written(cells: Any, template: str) -> dict[str, Any]:
    return {"texttemplate": template} if len(cells) <= MOST_WRITTEN else {}


def _lay_out_matrix(figure: go.Figure, num_classes: int) -> go.Figure:
    lay_out(figure, x="predicted", y="true", height=min(900, 220 + 26 * num_classes))
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(type="category")
    return figure


def recalls(
    own: Mapping[str, float],
    teacher: Mapping[str, float] | None,
    *,
    names: Sequence[str] = ("student", "teacher"),
) -> go.Figure:
    """Recall of each class as bars, the teacher's as a line across them; the lowest where there are many."""
    shown = sorted(own, key=lambda label: own[label])[:MOST_BARS]
    labels = [text(label) for label in shown]
    figure = go.Figure()
    figure.add_bar(
        x=[own[label] for label in shown],
        y=labels,
        orientation="h",
        name=names[0],
        marker_color=OKABE_ITO[0],
        text=[f"{own[label]:.3f}" for label in shown],
        textposition="inside",
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )
    if teacher:
        figure.add_scatter(
            x=[teacher.get(label) for label in shown],
            y=labels,
            mode="markers",
            name=names[1],
            marker={"symbol": "line-ns-open", "size": 18, "color": GREY, "line": {"width": 3}},
            hovertemplate="%{y}, teacher: %{x:.4f}<extra></extra>",
        )
    lay_out(figure, x="recall", y="class", height=min(900, 160 + 34 * len(shown)))
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category")
    return figure
