"""Learning curves: a figure after every epoch, the teacher's line, the rungs and what was decided there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboard.figures.axes import add_level, add_moment, lay_out
from dashboard.figures.palette import GREY, OKABE_ITO, WARM, Ink, text
from kdsearch.core.records import Decision, Scores
from kdsearch.store.reads import EpochRow

METRICS = ("quality", "accuracy", "macro_f1", "nll", "agreement", "coverage")
"""What is scored after an epoch, by its name in `Scores`; the first one is the study's objective."""
DASHES = ("solid", "dash", "dot", "dashdot")
MARKS = ("circle", "square", "diamond", "triangle-up")
DECISION_MARKS = {
    "continue": "circle-open",
    "pause": "square",
    "promote": "triangle-up",
    "stop": "x",
    "reject": "x",
    "retry": "diamond",
}


@dataclass(frozen=True)
class Curve:
    """One training as drawn."""

    name: str
    epochs: Sequence[EpochRow]
    best_epoch: int | None = None


def learning(
    curves: Sequence[Curve],
    *,
    metric: str,
    title: str,
    teacher: Scores | None,
    rungs: Sequence[int] = (),
    decisions: Sequence[Decision] = (),
    ink: Ink,
) -> go.Figure:
    """One figure over epochs; where curves are compared, line and mark tell them apart beside the colour."""
    figure = go.Figure()
    for place, curve in enumerate(curves):
        _add_curve(figure, curve, place, metric, ink)
    for rung in rungs:
        add_moment(figure, rung, f"rung {rung}")
    level = None if teacher is None else value(teacher, metric)
    if level is not None:
        add_level(figure, level, f"teacher {level:.4f}")
    if metric == METRICS[0] and curves:
        _add_decisions(figure, curves[0], decisions, ink)
    lay_out(figure, x="epoch", y=title)
    last = max([_last(curves), *rungs])
    figure.update_xaxes(dtick=1 if last <= 20 else None, range=[0.5, last + 0.5])
    return figure


def value(scores: Scores, metric: str) -> float | None:
    """One figure of scores."""
    found = getattr(scores, metric)
    return None if found is None else float(found)


def _last(curves: Sequence[Curve]) -> int:
    return max((epoch.epoch for curve in curves for epoch in curve.epochs), default=0)


def _add_curve(figure: go.Figure, curve: Curve, place: int, metric: str, ink: Ink) -> None:
    scored = [(e, e.scores) for e in curve.epochs if e.scores is not None]
    drawn = [(e, found) for e, scores in scored if (found := value(scores, metric)) is not None]
    if not drawn:
        return
    colour = OKABE_ITO[place % len(OKABE_ITO)]
    figure.add_scatter(
        x=[e.epoch for e, _ in drawn],
        y=[found for _, found in drawn],
        mode="lines+markers",
        name=text(curve.name),
        line={"color": colour, "dash": DASHES[place % len(DASHES)], "width": 2},
        marker={
            "symbol": MARKS[place % len(MARKS)],
            "size": [13 if e.epoch == curve.best_epoch else 7 for e, _ in drawn],
            "line": {"color": ink.paper, "width": 1},
        },
        customdata=[[e.rows_seen, text(e.stage), _kept(e, curve)] for e, _ in drawn],
        hovertemplate="epoch %{x} (%{customdata[1]}): %{y:.4f}<br>%{customdata[0]} rows seen%{customdata[2]}"
        f"<extra>{text(curve.name)}</extra>",
    )


def _kept(epoch: EpochRow, curve: Curve) -> str:
    return "<br>kept: the best epoch" if epoch.epoch == curve.best_epoch else ""


# ---------------------------------------------------------------- decisions at the rungs


def _add_decisions(figure: go.Figure, curve: Curve, decisions: Sequence[Decision], ink: Ink) -> None:
    reached = {e.epoch: e.scores.quality for e in curve.epochs if e.scores is not None}
    placed = [(d, reached[d.epoch]) for d in decisions if d.epoch in reached]
    for action in dict.fromkeys(d.action for d, _ in placed):
        own = [(d, quality) for d, quality in placed if d.action == action]
        figure.add_scatter(
            x=[d.epoch for d, _ in own],
            y=[quality for _, quality in own],
            mode="markers",
            name=f"decided: {action}",
            marker={
                "symbol": DECISION_MARKS[action],
                "size": 16,
                "color": WARM if action in ("pause", "stop", "reject") else ink.line,
                "line": {"width": 2, "color": ink.line},
            },
            customdata=[text(d.reason) for d, _ in own],
            hovertemplate="%{customdata}<extra></extra>",
        )
    judged = [
        d for d in decisions if d.epoch is not None and {"forecast_upper", "staircase"} <= d.inputs.keys()
    ]
    if judged:
        _add_forecast(figure, judged[-1], ink)


def _add_forecast(figure: go.Figure, decision: Decision, ink: Ink) -> None:
    """What the last judgement expected of the trial's end, and what it would have needed."""
    mean, upper, bar = (
        _number(decision.inputs.get(name)) for name in ("forecast_mean", "forecast_upper", "staircase")
    )
    if mean is None or upper is None or bar is None:
        return
    add_level(figure, bar, f"needed for the front {bar:.4f}", colour=WARM, above=False)
    figure.add_scatter(
        x=[decision.epoch],
        y=[mean],
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 14, "color": GREY},
        error_y={"type": "data", "array": [upper - mean], "arrayminus": [0], "color": GREY, "width": 6},
        name="forecast of its end, with the upper bound",
        hovertemplate=f"forecast {mean:.4f}, up to {upper:.4f}<extra></extra>",
    )


def _number(found: float | int | str | None) -> float | None:
    return float(found) if isinstance(found, (int, float)) else None


# ---------------------------------------------------------------- losses


def losses(epochs: Sequence[EpochRow]) -> go.Figure:
    """Every weighted term of the loss over epochs; the total alone where there is one term."""
    figure = go.Figure()
    terms = list(dict.fromkeys(name for epoch in epochs for name in epoch.losses if name != "total"))
    names = ["total", *terms] if len(terms) > 1 else ["total"]
    for place, name in enumerate(names):
        own = [epoch for epoch in epochs if name in epoch.losses]
        figure.add_scatter(
            x=[epoch.epoch for epoch in own],
            y=[epoch.losses[name] for epoch in own],
            mode="lines+markers",
            name=text(name),
            line={
                "color": OKABE_ITO[place % len(OKABE_ITO)],
                "dash": DASHES[place % len(DASHES)],
                "width": 2,
            },
            marker={"symbol": MARKS[place % len(MARKS)], "size": 7},
            hovertemplate="epoch %{x}: %{y:.4f}<extra>" + text(name) + "</extra>",
        )
    lay_out(figure, x="epoch", y="loss, mean over the epoch")
    figure.update_xaxes(dtick=1 if len(epochs) <= 20 else None)
    return figure
