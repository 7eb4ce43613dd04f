"""Parameters of trials as columns: which were searched, thinned rows, the grid of λ and T."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kdsearch.core.space import Scalar, encode
from kdsearch.store.columns import TrialColumns

Floats = npt.NDArray[np.float64]
MOST_VALUES = 8
"""Above so many distinct numbers λ and T are put into bins."""


@dataclass(frozen=True)
class Setting:
    """A trial that has a quality, and what it was given."""

    number: int
    student: str
    scheme: str
    quality: float
    latency_ms: float
    """NaN where it was not measured."""
    params: Mapping[str, Scalar]


def settings(
    trials: TrialColumns, params: Mapping[int, Mapping[str, Scalar]], latency_name: str
) -> list[Setting]:
    """The complete trials whose parameters are known, by number."""
    latencies = getattr(trials, latency_name)
    found = []
    for i in np.flatnonzero(trials.complete & np.isfinite(trials.quality)):
        number = int(trials.number[i])
        if number in params:
            own = (trials.student[i], trials.scheme[i], float(trials.quality[i]), float(latencies[i]))
            found.append(Setting(number, *own, params[number]))
    return found


def searched(rows: Sequence[Setting]) -> list[str]:
    """The parameters that took more than one value, the conditional ones after the common ones."""
    values: dict[str, set[Scalar]] = {}
    for row in rows:
        for name, value in row.params.items():
            values.setdefault(name, set()).add(value)
    found = [name for name, taken in values.items() if len(taken) > 1]
    return sorted(found, key=lambda name: ("." in name, name))


def is_numeric(values: Collection[Scalar]) -> bool:
    """Whether an axis of numbers fits: kernel sizes, names and truths are categories."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def is_wide(values: Collection[Scalar]) -> bool:
    """Whether numbers span so much that a logarithmic axis shows them better; shares such as λ never do."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    if not numbers or min(numbers) <= 0 or 0.1 < max(numbers) <= 1.0:
        return False
    return max(numbers) / min(numbers) > 5


def shown(value: Scalar) -> str:
    """A parameter's value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(encode(value))


def thinned(rows: Sequence[Setting], most: int, *, keep: Collection[int]) -> list[Setting]:
    """At most so many rows, those to keep first, the others evenly over the study; in the rows' order."""
    if len(rows) <= most:
        return list(rows)
    kept = [row.number for row in rows if row.number in keep][:most]
    others = [row.number for row in rows if row.number not in keep]
    room = most - len(kept)
    spread = [others[i * len(others) // room] for i in range(min(room, len(others)))] if room else []
    chosen = {*kept, *spread}
    return [row for row in rows if row.number in chosen]


# ---------------------------------------------------------------- λ and T


@dataclass(frozen=True)
class Grid:
    """Quality over λ and T, a cell each; NaN where nothing was tried."""

    lambdas: tuple[str, ...]
    temperatures: tuple[str, ...]
    """Last the row of trials that know no temperature, if there are any."""
    mean: Floats
    """(temperatures, lambdas)."""
    best: Floats
    counts: npt.NDArray[np.int64]


def distilling(rows: Sequence[Setting]) -> list[str]:
    """The schemes that have a λ."""
    return sorted({row.scheme for row in rows if f"{row.scheme}.lambda" in row.params})


def grid(rows: Sequence[Setting], scheme: str) -> Grid | None:
    """Of the finished trials of one scheme; None without any."""
    own = [row for row in rows if row.scheme == scheme and f"{scheme}.lambda" in row.params]
    if not own:
        return None
    lambdas = [_number(row.params[f"{scheme}.lambda"]) for row in own]
    temperatures = [_number(row.params.get(f"{scheme}.temperature")) for row in own]
    columns, places_x = _cells(lambdas, log=False)
    lines, places_y = _cells(temperatures, log=True)
    shape = (len(lines), len(columns))
    counts, total = np.zeros(shape, np.int64), np.zeros(shape)
    best = np.full(shape, -np.inf)
    for row, x, y in zip(own, places_x, places_y, strict=True):
        counts[y, x] += 1
        total[y, x] += row.quality
        best[y, x] = max(best[y, x], row.quality)
    empty = counts == 0
    mean = np.where(empty, np.nan, total / np.maximum(counts, 1))
    return Grid(tuple(columns), tuple(lines), mean, np.where(empty, np.nan, best), counts)


def _number(value: Scalar | None) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _cells(values: Sequence[float], *, log: bool) -> tuple[list[str], list[int]]:
    """Names of the cells in rising order, and the cell of each value; what is no number comes last."""
    known = sorted({value for value in values if not math.isnan(value)})
    if len(known) <= MOST_VALUES:
        names = [f"{value:.3g}" for value in known]
        place: Mapping[float, int] = {value: i for i, value in enumerate(known)}
    else:
        names, place = _bins(known, log=log)
    if any(math.isnan(value) for value in values):
        names = [*names, "none"]
    return names, [len(names) - 1 if math.isnan(value) else place[value] for value in values]


def _bins(known: Sequence[float], *, log: bool) -> tuple[list[str], Mapping[float, int]]:
    space = np.geomspace if log and known[0] > 0 else np.linspace
    edges = space(known[0], known[-1], MOST_VALUES + 1)
    names = [f"{low:.2g} to {high:.2g}" for low, high in pairwise(edges)]
    places = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, MOST_VALUES - 1)
    return names, dict(zip(known, places.tolist(), strict=True))


# ---------------------------------------------------------------- what differs


def differing(settings: Sequence[Mapping[str, Scalar]]) -> dict[str, list[Scalar | None]]:
    """The parameters in which some of these trials differ, each with its value in every one of them."""
    names = dict.fromkeys(name for params in settings for name in params)
    columns = {name: [params.get(name) for params in settings] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}
