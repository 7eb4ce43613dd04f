"""What parameters do: importance as bars, slices, the λ × T heat map, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures import palette
from dashboard.figures.axes import lay_out
from dashboard.figures.confusion import SEQUENTIAL
from dashboard.figures.palette import GREY, OKABE_ITO, Ink, text
from dashboard.parameters import Grid, Setting, is_numeric, is_wide, searched, shown, thinned
from kdsearch.core.space import Scalar
from kdsearch.store.reads import StudyRow

MOST_BARS = 15
LEAST_SHARE = 0.005
"""A parameter that matters less for every objective has no bar."""
MOST_IN_SLICES = 600
"""Points of each small chart."""
MOST_LINES = 1000
MOST_TICKS = 5
"""Up to so many distinct whole numbers each has its tick."""
COLUMNS = 3
ROW_PX = 240
SEQUENTIAL_ON_DARK = "Cividis"
ABSENT = "none"
"""A conditional parameter that a trial does not have."""


# ---------------------------------------------------------------- how much they matter


def importance(by_objective: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Shares that sum to one per objective, side by side, the most important for the first one on top."""
    figure = go.Figure()
    shares = {objective: normal(found) for objective, found in by_objective.items()}
    total: dict[str, float] = {}
    for found in shares.values():
        for name, share in found.items():
            total[name] = total.get(name, 0.0) + share
    told = [name for name in total if any(own.get(name, 0.0) >= LEAST_SHARE for own in shares.values())]
    names = sorted(told, key=lambda name: -total[name])[:MOST_BARS]
    for place, (objective, found) in enumerate(shares.items()):
        figure.add_bar(
            x=[found.get(name, 0.0) for name in names],
            y=[text(name) for name in names],
            orientation="h",
            name=text(objective),
            marker={"color": OKABE_ITO[place], "pattern": {"shape": "" if place == 0 else "/"}},
            hovertemplate="%{y}: %{x:.1%} of " + text(objective) + "<extra></extra>",
        )
    lay_out(figure, x="share of the importance", y="", height=140 + 40 * len(names))
    figure.update_layout(barmode="group")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def normal(found: Mapping[str, float]) -> dict[str, float]:
    """Shares of their sum; all zero where nothing matters."""
    whole = sum(max(0.0, value) for value in found.values())
    return {name: max(0.0, value) / whole if whole else 0.0 for name, value in found.items()}


# ---------------------------------------------------------------- slices


def slices(study: StudyRow, rows: Sequence[Setting], *, keep: Sequence[int]) -> go.Figure | None:
    """Quality over each searched parameter, a small chart each: colour is the student, the symbol the scheme.

    None where nothing was searched yet. Of many trials an even share is drawn, those to `keep` always.
    """
    names = [name for name in searched(rows) if name != "student"]
    if not names:
        return None
    drawn = thinned(rows, MOST_IN_SLICES, keep=set(keep))
    lines = -(-len(names) // COLUMNS)
    figure = make_subplots(
        rows=lines, cols=COLUMNS, shared_yaxes="all", subplot_titles=[text(name) for name in names],
        horizontal_spacing=0.03, vertical_spacing=min(0.3, 0.28 / lines),
    )  # fmt: skip
    colours = palette.colours(study, [row.student for row in rows])
    symbols = palette.symbols(study, [row.scheme for row in rows])
    for place, name in enumerate(names):
        line, column = divmod(place, COLUMNS)
        _add_slice(figure, name, drawn, colours, symbols, {"row": line + 1, "col": column + 1})
    figure.update_layout(height=110 + ROW_PX * lines, margin={"l": 10, "r": 10, "t": 80, "b": 10})
    _add_scheme_keys(figure, {scheme: symbols[scheme] for scheme in sorted({row.scheme for row in rows})})
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "top", "yref": "container"})
    figure.update_yaxes(title=f"quality ({study.quality_name})", col=1)
    return figure


def _add_slice(
    figure: go.Figure,
    name: str,
    rows: Sequence[Setting],
    colours: Mapping[str, str],
    symbols: Mapping[str, str],
    at: Mapping[str, int],
) -> None:
    first = at == {"row": 1, "col": 1}
    own = [row for row in rows if name in row.params]
    numeric = is_numeric([row.params[name] for row in own])
    for student, colour in colours.items():
        theirs = [row for row in own if row.student == student]
        if not theirs and not first:
            continue
        values: Any = [row.params[name] if numeric else shown(row.params[name]) for row in theirs]
        figure.add_scatter(
            x=np.array(values, float) if numeric else [text(value) for value in values],
            y=np.array([row.quality for row in theirs], float),
            mode="markers",
            marker={
                "color": colour,
                "symbol": [symbols[row.scheme] for row in theirs],
                "size": 7,
                "opacity": 0.75,
            },
            name=text(student),
            legendgroup=student,
            showlegend=first,
            customdata=[row.number for row in theirs],
            hovertemplate="trial %{customdata}: %{y:.4f} at %{x}<extra>" + text(student) + "</extra>",
            **at,
        )
    taken = sorted({float(value) for row in own if isinstance(value := row.params[name], (int, float))})
    kind = "log" if numeric and is_wide(taken) else "linear" if numeric else "category"
    figure.update_xaxes(type=kind, nticks=6, **at)
    if numeric and is_few_integers(taken):
        figure.update_xaxes(tickvals=taken, ticktext=[shown(value) for value in taken], **at)


def is_few_integers(values: Sequence[float]) -> bool:
    """Whether each of these distinct numbers may have its own tick, as sizes of layers do."""
    return len(values) <= MOST_TICKS and all(value == int(value) for value in values)


def _add_scheme_keys(figure: go.Figure, symbols: Mapping[str, str]) -> None:
    for scheme, symbol in symbols.items():
        marker = {"symbol": symbol, "color": GREY, "size": 8}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=text(scheme), row=1, col=1)


# ---------------------------------------------------------------- λ and T


def heat_map(found: Grid, *, which: str, quality_name: str) -> go.Figure:
    """Quality in every cell, the figure and the number of trials written into it; empty cells stay empty."""
    z = found.mean if which == "mean" else found.best
    written = [
        [f"{q:.3f}<br>n={n}" if n else "" for q, n in zip(line, counts, strict=True)]
        for line, counts in zip(z.tolist(), found.counts.tolist(), strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=np.round(z, 5),
            x=list(range(len(found.lambdas))),
            y=list(range(len(found.temperatures))),
            colorscale=SEQUENTIAL,
            text=written,
            texttemplate="%{text}",
            xgap=2,
            ygap=2,
            colorbar={"title": quality_name},
            hovertemplate="%{text}<extra></extra>",
        )
    )
    lay_out(figure, x="λ, the weight of the soft targets", y="T", height=160 + 50 * len(found.temperatures))
    for update, names in ((figure.update_xaxes, found.lambdas), (figure.update_yaxes, found.temperatures)):
        update(tickmode="array", tickvals=list(range(len(names))), ticktext=list(names), showgrid=False)
    return figure


# ---------------------------------------------------------------- parallel coordinates


def parallel(study: StudyRow, rows: Sequence[Setting], *, keep: Sequence[int], ink: Ink) -> go.Figure | None:
    """A line per trial through its parameters, latency and quality; the best stand out. None without any."""
    done = [row for row in rows if not math.isnan(row.latency_ms)]
    names = searched(done)
    drawn = thinned(done, MOST_LINES, keep=set(keep))
    if not drawn:
        return None
    axes = [_axis(name, [row.params.get(name) for row in drawn]) for name in names]
    axes.append(_numbers(study.latency_name.replace("_", " "), [row.latency_ms for row in drawn]))
    qualities = [row.quality for row in drawn]
    axes.append({"label": text(study.quality_name), "values": np.array(qualities)})
    figure = go.Figure(
        go.Parcoords(
            dimensions=axes,
            line={
                "color": np.array(qualities),
                "colorscale": SEQUENTIAL if ink == palette.LIGHT else SEQUENTIAL_ON_DARK,
                "showscale": True,
            },
            labelangle=-20,
            labelside="bottom",
        )
    )
    figure.update_layout(height=520, margin={"l": 60, "r": 40, "t": 40, "b": 110})
    return figure


def _axis(name: str, values: Sequence[Scalar | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if is_numeric(known):
        return _numbers(name, [float(v) if isinstance(v, (int, float)) else None for v in values])
    places = {each: i for i, each in enumerate(sorted({shown(value) for value in known}), start=1)}
    some = len(known) < len(values)
    return {
        "label": text(name),
        "values": np.array([0.0 if v is None else float(places[shown(v)]) for v in values]),
        "tickvals": ([0] if some else []) + list(places.values()),
        "ticktext": ([ABSENT] if some else []) + [text(each) for each in places],
        "range": [-0.2 if some else 0.8, len(places) + 0.2],
    }


def _numbers(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """An axis of numbers, logarithmic where they span much; who has none runs below the others."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    log = is_wide(known)
    places = [None if v is None else float(np.log10(v)) if log else v for v in values]
    bottom, top = (float(np.log10(low)), float(np.log10(high))) if log else (low, high)
    below = bottom - 0.15 * ((top - bottom) or 1.0)
    some = len(known) < len(values)
    ticks = np.linspace(bottom, top, 4) if top > bottom else np.array([bottom])
    taken = sorted(set(known))
    if is_few_integers(taken):
        ticks = np.log10(taken) if log else np.array(taken)
    words = [f"{10**tick if log else tick:.3g}" for tick in ticks]
    return {
        "label": text(name) + (" (log)" if log else ""),
        "values": np.array([below if place is None else place for place in places]),
        "tickvals": ([below] if some else []) + ticks.tolist(),
        "ticktext": ([ABSENT] if some else []) + words,
        "range": [below if some else bottom, top] if top > bottom else [below, top + 0.5],
    }
