"""The Pareto chart: the front as a step line with intervals, the rest faded, the teacher as a star.

Colour says the student, the symbol says the scheme. Every point carries its trial number as ``customdata``.
Of many dominated ones the best at each place are drawn; arrays travel typed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard import front as fronts
from dashboard import wording
from dashboard.figures import palette
from dashboard.figures.palette import GREY, WARM, Ink
from dashboard.front import Drawn
from dashboard.queries import studies
from kdsearch.store.columns import Flags

FADED = 0.5
MOST_DRAWN = 1000
"""Of more points that are not on the front, the best at each place are drawn: WebGL takes longer to start."""
PLACES = 36
"""Along each axis."""
UNFINISHED = {"running": "hourglass", "paused": "bowtie"}
HEIGHT = 540
FEW = 8
"""With fewer points the quality axis holds all of them."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a group of points is drawn."""

    standing: str
    size: int
    opacity: float
    hollow: bool = False
    outlined: bool = False


DOMINATED = Look(standing="dominated", size=8, opacity=FADED)
OVER = Look(standing="over a limit", size=8, opacity=0.75, hollow=True)
FRONT = Look(standing="on the front", size=13, opacity=1.0, outlined=True)


def pareto(drawn: Drawn, *, ink: Ink, picked: int | None = None) -> go.Figure:
    """The chart of a view; `picked` is a trial's number."""
    figure = go.Figure()
    on_front = np.zeros(len(drawn.trials), np.bool_)
    on_front[list(drawn.front)] = True
    _add_group(figure, drawn, thinned(drawn, drawn.finished & ~drawn.inside), OVER, ink)
    _add_group(figure, drawn, thinned(drawn, drawn.inside & ~on_front), DOMINATED, ink)
    _add_steps(figure, drawn, ink)
    _add_group(figure, drawn, on_front, FRONT, ink)
    _add_unfinished(figure, drawn, ink)
    _add_keys(figure, drawn)
    _add_teacher(figure, drawn, ink)
    _add_knee(figure, drawn, ink)
    _add_ring(figure, drawn, picked, ink)
    _lay_out(figure, drawn, ink)
    return figure


def thinned(drawn: Drawn, mask: Flags) -> Flags:
    """Of many points those of the best quality at each place of the chart; few are left as they are."""
    where = np.flatnonzero(mask)
    if len(where) <= MOST_DRAWN:
        return mask
    where = where[np.argsort(-drawn.y[where], kind="stable")]
    across = np.log10(drawn.x[where]) if drawn.view.cost.log else drawn.x[where]
    places = _places(across) * PLACES + _places(drawn.y[where])
    _, first = np.unique(places, return_index=True)
    kept = np.zeros_like(mask)
    kept[where[first]] = True
    return kept


def _places(values: Any) -> Any:
    """0 to PLACES - 1 along an axis; what lies far out shares the outermost ones."""
    low, high = np.quantile(values, [0.02, 0.98])
    share = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    return np.minimum((share * PLACES).astype(np.int64), PLACES - 1)


def _groups(drawn: Drawn, mask: Flags) -> Iterator[tuple[str, str, Any]]:
    """(student, scheme, positions) of the points in a mask, each pair once."""
    where = np.flatnonzero(mask)
    students, schemes = drawn.trials.student[where], drawn.trials.scheme[where]
    for student in sorted(set(students)):
        for scheme in sorted(set(schemes[students == student])):
            yield student, scheme, where[(students == student) & (schemes == scheme)]


def _add_group(figure: go.Figure, drawn: Drawn, mask: Flags, look: Look, ink: Ink) -> None:
    colours = palette.colours(drawn.snapshot.study, list(drawn.snapshot.trials.student))
    symbols = palette.symbols(drawn.snapshot.study, list(drawn.snapshot.trials.scheme))
    many = look is not FRONT and len(drawn.trials) > MOST_DRAWN
    for student, scheme, where in _groups(drawn, mask):
        marker = {
            "color": colours[student],
            "symbol": symbols[scheme] + ("-open" if look.hollow else ""),
            "size": 6 if many else look.size,
            "opacity": look.opacity,
        }
        if not look.hollow:
            marker["line"] = {"width": 1.5 if look.outlined else 0, "color": ink.line}
        trace = go.Scatter(
            x=drawn.x[where],
            y=drawn.y[where],
            customdata=drawn.trials.number[where].astype(np.int32),
            mode="markers",
            name=look.standing,
            marker=marker,
            showlegend=False,
            hovertemplate=_hover(drawn, f"{student}, {scheme}", look.standing),
            **({"error_y": _intervals(drawn, where)} if look is FRONT else {}),
        )
        figure.add_trace(trace)


def _hover(drawn: Drawn, who: str, standing: str) -> str:
    quality, cost = drawn.view.quality, drawn.view.cost
    unit = f" {cost.unit}" if cost.unit else ""
    return (
        f"<b>trial %{{customdata}}</b>: {palette.text(who)}<br>{quality.label} %{{y:.4f}}<br>"
        f"{cost.label} %{{x:.3~g}}{unit}<br>{standing}<extra></extra>"
    )


def _intervals(drawn: Drawn, where: Any) -> Mapping[str, Any]:
    """95 % intervals, where they were worked out and are of what is drawn."""
    if drawn.view.quality.name != "quality" or not drawn.standings:
        return {"visible": False}
    up, down = np.zeros(len(where)), np.zeros(len(where))
    for k, i in enumerate(where):
        standing = drawn.standings.get(int(drawn.trials.number[i]))
        if standing is not None:
            up[k], down[k] = standing.high - drawn.y[i], drawn.y[i] - standing.low
    return {
        "type": "data",
        "array": np.maximum(up, 0.0),
        "arrayminus": np.maximum(down, 0.0),
        "color": GREY,
        "thickness": 1.5,
        "width": 4,
    }


def _add_steps(figure: go.Figure, drawn: Drawn, ink: Ink) -> None:
    """What quality can be had for at most so much: a step line, on to the edge of the chart."""
    if not drawn.front:
        return
    xs, ys = drawn.x[list(drawn.front)], drawn.y[list(drawn.front)]
    if not drawn.view.cost.more_is_better:
        end = _limit(drawn) or _edges(drawn)[1]
        xs, ys = np.append(xs, max(end, xs[-1])), np.append(ys, ys[-1])
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"shape": "hv", "color": ink.line, "width": 1.5},
        name="front",
        showlegend=False,
        hoverinfo="skip",
    )


def _add_unfinished(figure: go.Figure, drawn: Drawn, ink: Ink) -> None:
    """What runs or is paused: at its best quality so far, or at the foot of the chart before its first."""
    trials = drawn.trials
    foot = _foot(drawn)
    so_far = trials.so_far if drawn.view.quality.name == "quality" else np.full(len(trials), np.nan)
    for state, symbol in UNFINISHED.items():
        where = np.flatnonzero(trials.state == state)
        if len(where):
            figure.add_scatter(
                x=drawn.x[where],
                y=np.where(np.isfinite(so_far[where]), so_far[where], foot),
                customdata=trials.number[where].astype(np.int32),
                mode="markers",
                name=state,
                marker={"symbol": f"{symbol}-open", "size": 12, "color": ink.line},
                hovertemplate=f"<b>trial %{{customdata}}</b>: {state}<br>so far %{{y:.4f}}<extra></extra>",
                legendgroup="other",
            )


def _foot(drawn: Drawn) -> float:
    known = drawn.y[drawn.finished]
    return float(known.min()) if len(known) else 0.0


def _add_keys(figure: go.Figure, drawn: Drawn) -> None:
    """The legend: points carry two codes each, which one line of a legend cannot show."""
    study, trials = drawn.snapshot.study, drawn.snapshot.trials
    shown = {"student": set(drawn.trials.student), "scheme": set(drawn.trials.scheme)}
    for student, colour in palette.colours(study, list(trials.student)).items():
        if student in shown["student"]:
            _add_key(figure, student, "Student", {"color": colour, "symbol": "circle"})
    for scheme, symbol in palette.symbols(study, list(trials.scheme)).items():
        if scheme in shown["scheme"]:
            _add_key(figure, scheme, "Scheme", {"color": GREY, "symbol": symbol})


def _add_key(figure: go.Figure, name: str, title: str, marker: Mapping[str, str]) -> None:
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={**marker, "size": 10},
        name=palette.text(name),
        legendgroup=title,
        legendgrouptitle_text=title,
        hoverinfo="skip",
    )


def _add_teacher(figure: go.Figure, drawn: Drawn, ink: Ink) -> None:
    teacher, view = drawn.snapshot.study.teacher, drawn.view
    if teacher is None:
        return
    dotted = {"dash": "dash", "color": GREY, "width": 1.5}
    y = fronts.of_teacher(view.quality, teacher.scores, teacher.latency)
    x = fronts.of_teacher(view.cost, teacher.scores, teacher.latency)
    if y is not None:
        figure.add_shape(type="line", xref="paper", x0=0, x1=1, y0=y, y1=y, line=dotted, layer="below")
    if x is not None:
        figure.add_shape(type="line", yref="paper", x0=x, x1=x, y0=0, y1=1, line=dotted, layer="below")
    if x is not None and y is not None:
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            marker={
                "symbol": "star",
                "size": 18,
                "color": ink.line,
                "line": {"color": ink.paper, "width": 1},
            },
            name="teacher",
            legendgroup="other",
            hovertemplate=_hover(drawn, "", "").replace("<b>trial %{customdata}</b>: ", "<b>teacher</b>"),
        )


def _add_knee(figure: go.Figure, drawn: Drawn, ink: Ink) -> None:
    if drawn.knee is None:
        return
    x = float(drawn.x[drawn.knee])
    figure.add_annotation(
        x=np.log10(x) if drawn.view.cost.log else x,
        y=float(drawn.y[drawn.knee]),
        text="knee (a suggestion)",
        ax=70,
        ay=35,
        arrowcolor=ink.line,
        arrowhead=2,
        font={"color": ink.line},
        hovertext="Farthest above the line between the front's ends: beyond, a little quality costs much.",
    )


def _add_ring(figure: go.Figure, drawn: Drawn, picked: int | None, ink: Ink) -> None:
    """A ring around the trial whose detail is shown."""
    i = drawn.place(picked)
    if i is not None and drawn.finished[i]:
        figure.add_scatter(
            x=[drawn.x[i]],
            y=[drawn.y[i]],
            mode="markers",
            marker={"symbol": "circle-open", "size": 24, "color": WARM, "line": {"width": 3}},
            name="picked",
            showlegend=False,
            hoverinfo="skip",
        )


# ---------------------------------------------------------------- axes and limits


def _edges(drawn: Drawn) -> tuple[float, float]:
    """Where the cost axis begins and ends."""
    teacher, view = drawn.snapshot.study.teacher, drawn.view
    own = None if teacher is None else fronts.of_teacher(view.cost, teacher.scores, teacher.latency)
    shown = [float(x) for x in (own, _limit(drawn)) if x is not None]
    known = np.concatenate([drawn.x[np.isfinite(drawn.x)], np.asarray(shown, np.float64)])
    if view.cost.log:
        known = known[known > 0]
    if not len(known):
        return (0.1, 10.0) if view.cost.log else (0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    if view.cost.log:
        return low / 1.4, high * 1.4
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _limit(drawn: Drawn) -> float | None:
    """The tighter of the budget and the study's own limit, where the axis is that latency."""
    study, view = drawn.snapshot.study, drawn.view
    if view.cost.name != study.latency_name:
        return None
    return min((ms for ms in (view.within_ms, studies.limit_ms(study)) if ms is not None), default=None)


def _heights(drawn: Drawn) -> tuple[float, float] | None:
    """Where the quality axis begins and ends: failures far below would squeeze what is compared.

    None leaves it to Plotly; a double click shows everything.
    """
    known = drawn.y[drawn.finished]
    if len(known) < FEW:
        return None
    teacher = drawn.snapshot.study.teacher
    own = None if teacher is None else fronts.of_teacher(drawn.view.quality, teacher.scores, teacher.latency)
    wanted = [float(np.quantile(known, 0.25)), *drawn.y[list(drawn.front)].tolist()]
    wanted += [] if own is None else [own]
    if drawn.view.quality.name == "quality":
        shown = {int(drawn.trials.number[i]) for i in drawn.front} & drawn.standings.keys()
        wanted += [
            end for number in shown for end in (drawn.standings[number].low, drawn.standings[number].high)
        ]
    low, high = min(wanted), max(float(known.max()), *wanted)
    margin = max(0.2 * (high - low), 0.01)
    return max(low - margin, float(known.min()) - margin / 3), high + margin / 3


def _say_what_is_below(figure: go.Figure, drawn: Drawn, low: float) -> None:
    below = int((drawn.y[drawn.finished] < low).sum())
    if below:
        figure.add_annotation(
            xref="paper", yref="paper", x=0.01, y=0.01, xanchor="left", yanchor="bottom", showarrow=False,
            text=f"{wording.plural(below, 'trial')} further down: double-click", font={"color": GREY},
        )  # fmt: skip


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 and so on within a range; over more than four decades the tens alone."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1, 2, 5) if np.log10(high / low) <= 4 else (1,)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    return [tick for tick in ticks if low <= tick <= high]


def _lay_out(figure: go.Figure, drawn: Drawn, ink: Ink) -> None:
    view, study = drawn.view, drawn.snapshot.study
    low, high = _edges(drawn)
    limit = _limit(drawn)
    if limit is not None:
        figure.add_shape(
            type="rect", yref="paper", x0=limit, x1=high, y0=0, y1=1,
            fillcolor=GREY, opacity=0.12, line_width=0, layer="below",
        )  # fmt: skip
        figure.add_shape(
            type="line", yref="paper", x0=limit, x1=limit, y0=0, y1=1, line={"color": WARM, "width": 2}
        )
    name = f"quality ({palette.text(study.quality_name)})"
    across: dict[str, Any] = {"title": view.cost.title, "range": [low, high]}
    if view.cost.log:
        ticks = _ticks(low, high)
        across |= {"type": "log", "range": [np.log10(low), np.log10(high)]}
        across |= {
            "tickvals": ticks,
            "ticktext": [wording.count(tick) if tick >= 1000 else f"{tick:g}" for tick in ticks],
        }
    up: dict[str, Any] = {"title": name if view.quality.name == "quality" else view.quality.label}
    heights = _heights(drawn)
    if heights is not None:
        up["range"] = heights
        _say_what_is_below(figure, drawn, heights[0])
    figure.update_layout(
        xaxis=across,
        yaxis=up,
        hovermode="closest",
        dragmode="zoom",
        clickmode="event+select",
        uirevision=f"{study.name} {view.cost.name} {view.quality.name}",
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=HEIGHT,
        legend={"groupclick": "toggleitem", "itemclick": False, "itemdoubleclick": False},
    )
