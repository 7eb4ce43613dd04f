"""What the smaller charts have in common: titles of axes, margins, a height."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from dashboard.figures.palette import GREY

HEIGHT = 360


def lay_out(figure: go.Figure, *, x: str, y: str, height: int = HEIGHT, **others: Any) -> go.Figure:
    """Name the axes; the figure itself comes back."""
    figure.update_layout(
        xaxis_title=x,
        yaxis_title=y,
        height=height,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        hovermode="closest",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        **others,
    )
    return figure


def add_level(figure: go.Figure, y: float, words: str, *, colour: str = GREY, above: bool = True) -> None:
    """A dotted horizontal line with its name at the right end, such as the teacher's."""
    figure.add_hline(y=y, line={"dash": "dot", "color": colour, "width": 2})
    figure.add_annotation(
        x=1, xref="paper", y=y, text=words, showarrow=False, xanchor="right",
        yanchor="bottom" if above else "top",
        font={"color": colour},
    )  # fmt: skip


def add_moment(figure: go.Figure, x: float, words: str, *, colour: str = GREY) -> None:
    """A dotted vertical line with its name at its foot, such as a rung's or a percentile's."""
    figure.add_vline(x=x, line={"dash": "dot", "color": colour, "width": 1})
    figure.add_annotation(
        x=x, y=0, yref="paper", text=words, showarrow=False, xanchor="left", yanchor="bottom",
        font={"color": colour},
    )  # fmt: skip
