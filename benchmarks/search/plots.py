"""Regret over training as an SVG file, written by hand: no drawing library is a dependency of kdsearch.

Median over seeds of each method; the band of the first is the middle half of its replays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from benchmarks.search.regret import Line

FloatArray = npt.NDArray[np.float64]
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 920, 440, 60, 40, 50, 300
COLOURS = ("#c1272d", "#1f1f1f", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d31", "#7f7f7f")
LOWEST = 1e-4
"""Regret below it is drawn there: a logarithmic axis has no zero."""
POINTS = 120


def regret_plot(title: str, lines: Mapping[str, Sequence[Line]]) -> str:
    """An SVG document; the methods in the order given."""
    first = next(iter(lines.values()))[0]
    grid_X = np.linspace(0, first.budget_epochs, POINTS + 1)[1:]
    curves = {name: quantiles(found, grid_X) for name, found in lines.items()}
    axes = _Axes(first.budget_epochs / first.epochs_per_training, _lowest(curves.values()))
    trainings_X = grid_X / first.epochs_per_training
    parts = [axes.frame(title)]
    for place, (name, curves_QX) in enumerate(curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        dash = ' stroke-dasharray="6 3"' if place >= len(COLOURS) else ""
        if place == 0:
            band = axes.path(trainings_X, curves_QX[0]) + axes.path(trainings_X[::-1], curves_QX[2][::-1])
            parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity="0.15"/>')
        drawn = axes.path(trainings_X, curves_QX[1])
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        parts.append(_legend(place, name, colour, dash))
    body = "\n".join(parts)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def quantiles(lines: Sequence[Line], grid_X: FloatArray) -> FloatArray:
    """Quartiles (3, X) over seeds of the regret after so many epochs."""
    regret_SX = np.array([[line.regret_at(epochs) for epochs in grid_X] for line in lines])
    return np.asarray(np.quantile(regret_SX, (0.25, 0.5, 0.75), axis=0))


def _lowest(curves: Iterable[FloatArray]) -> float:
    smallest = min(float(curves_QX[:2].min()) for curves_QX in curves)
    return float(10.0 ** math.floor(math.log10(max(smallest, LOWEST))))


class _Axes:
    """From (trainings, regret) to the picture."""

    def __init__(self, most: float, lowest: float) -> None:
        self.most, self.lowest = most, lowest

    def place(self, trainings: float, regret: float) -> tuple[float, float]:
        span = math.log10(max(regret, self.lowest)) / math.log10(self.lowest)
        x = LEFT + trainings / self.most * (WIDTH - LEFT - LEGEND)
        return x, TOP + span * (HEIGHT - TOP - BOTTOM)

    def path(self, trainings_X: FloatArray, regret_X: FloatArray) -> str:
        places = (self.place(float(t), float(r)) for t, r in zip(trainings_X, regret_X, strict=True))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places) + " "

    def frame(self, title: str) -> str:
        right, bottom = self.place(self.most, self.lowest)
        parts = [f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>']
        for power in range(round(-math.log10(self.lowest)) + 1):
            y = self.place(0, 10.0**-power)[1]
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**-power:g}</text>')
        for share in range(5):
            x = self.place(self.most * share / 4, 1.0)[0]
            label = f"{self.most * share / 4:g}"
            parts.append(f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{label}</text>')
        middle = (LEFT + right) / 2
        words = "rows seen by all trials, in whole trainings"
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{words}</text>')
        turned = f'transform="rotate(-90)" x="{-HEIGHT / 2:.0f}" y="14"'
        parts.append(f'<text {turned} text-anchor="middle">regret of hypervolume</text>')
        return "\n".join(parts)


def _legend(place: int, name: str, colour: str, dash: str) -> str:
    x, y = WIDTH - LEGEND + 16, TOP + 10 + 17 * place
    line = f'<line x1="{x}" y1="{y}" x2="{x + 22}" y2="{y}" stroke="{colour}" stroke-width="2"{dash}/>'
    return f'{line}<text x="{x + 28}" y="{y + 4}">{escape(name)}</text>'
