"""How the latencies of single queries are spread, with p50, p90 and p99."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.axes import lay_out
from dashboard.figures.curves import DASHES
from dashboard.figures.palette import GREY, OKABE_ITO, text
from kdsearch.core.records import Latency

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def spread(latencies: Mapping[str, Latency], *, marked: bool) -> go.Figure:
    """Share of the queries that were answered within so many milliseconds, a line each.

    A figure without recorded quantiles is drawn as its three percentiles. `marked` writes the percentiles of
    the first one into the chart.
    """
    figure = go.Figure()
    for place, (name, latency) in enumerate(latencies.items()):
        x, y = steps(latency)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines" if latency.quantiles_ms else "markers",
            line={
                "color": OKABE_ITO[place % len(OKABE_ITO)],
                "dash": DASHES[place % len(DASHES)],
                "width": 2,
            },
            name=text(name),
            hovertemplate="%{y:.0%} of the queries within %{x:.3g} ms<extra>" + text(name) + "</extra>",
        )
    lay_out(figure, x="latency (ms, log)", y="share of queries")
    figure.update_xaxes(type="log", dtick="D2", minexponent=2)
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    if marked and latencies:
        _mark(figure, next(iter(latencies.values())))
    return figure


def steps(latency: Latency) -> tuple[list[float], list[float]]:
    """Latencies (ms) and the share of the queries within each, both rising."""
    found = latency.quantiles_ms
    if found:
        return list(found), np.linspace(0.0, 1.0, len(found)).tolist()
    return [latency.p50_ms, latency.p90_ms, latency.p99_ms], list(PERCENTILES.values())


def _mark(figure: go.Figure, latency: Latency) -> None:
    for name in PERCENTILES:
        ms = latency.at(f"{name}_ms")
        # annotations of a logarithmic axis stand at the logarithm, lines at the value: a mark is both
        figure.add_vline(x=ms, line={"dash": "dot", "color": GREY, "width": 1})
        figure.add_annotation(
            x=float(np.log10(ms)), y=PERCENTILES[name], text=f"{name} {ms:.3g} ms", xanchor="right",
            yanchor="bottom", showarrow=False, font={"color": GREY},
        )  # fmt: skip
