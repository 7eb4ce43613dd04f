"""KD gain over `none`: a mark per student and scheme, with its interval where one can be had."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.figures import palette
from dashboard.figures.axes import lay_out
from dashboard.figures.palette import GREY, text
from dashboard.gains import Gain
from kdsearch.store.reads import StudyRow


def gains(study: StudyRow, found: Sequence[Gain]) -> go.Figure:
    """Right of the line distilling paid; hollow marks are of one training each."""
    figure = go.Figure()
    colours = palette.colours(study, [gain.student for gain in found])
    symbols = palette.symbols(study, [gain.scheme for gain in found])
    figure.add_vline(x=0, line={"color": GREY, "width": 2})
    for gain in found:
        sure = gain.low is not None and gain.high is not None
        spread = {
            "type": "data",
            "symmetric": False,
            "array": [(gain.high or 0.0) - gain.gain],
            "arrayminus": [gain.gain - (gain.low or 0.0)],
        }
        figure.add_scatter(
            x=[gain.gain],
            y=[text(f"{gain.student}, {gain.scheme}")],
            mode="markers",
            marker={
                "color": colours[gain.student],
                "symbol": symbols[gain.scheme] + ("" if sure else "-open"),
                "size": 12,
                "line": {"width": 2},
            },
            error_x=spread if sure else None,
            showlegend=False,
            hovertemplate=f"{said(gain)}<extra></extra>",
        )
    lay_out(figure, x=f"gain in {text(study.quality_name)}", y="", height=140 + 40 * len(found))
    figure.update_xaxes(tickformat="+.3f")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def said(gain: Gain) -> str:
    """A gain in words."""
    between = "one training each" if gain.low is None else f"95 %: {gain.low:+.4f} to {gain.high:+.4f}"
    return (
        f"{gain.gain:+.4f} ({between})<br>trial {gain.trial}, the best of {gain.tried}, against trial "
        f"{gain.control}, the best of {gain.tried_control}"
    )
