"""The order of the trials at a rung: by dominance, and within one front by the hypervolume that each adds.

Latency counts by its rank among the latencies at the rung, so that no unit and no logarithm changes an
order. A student at or below the quality floor adds nothing: such come last, by quality alone, however fast.
Ranks, not sorting positions: two trials with equal figures have one place.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kdsearch.core.pareto import Point
from kdsearch.core.records import Tried


@dataclass(frozen=True)
class Entry:
    """A trial as it stood at a rung."""

    number: int
    point: Point
    """Best quality so far; latency, infinite where nobody measured it: slower than every known one."""


Order: TypeAlias = Callable[[Sequence[Point], float], Iterator[Point]]
"""Distinct points and the quality floor, best point first. Only as much is sorted as is asked for."""


def entry(trial: Tried, quality: float) -> Entry:
    """A trial with its quality at a rung."""
    return Entry(trial.number, (quality, math.inf if trial.latency_ms is None else trial.latency_ms))


def at_rung(tried: Sequence[Tried], rung: int) -> list[Entry]:
    """Every trial that reached the rung with a scored epoch, whatever became of it."""
    found = [(t, t.best_by(rung)) for t in tried if max(t.qualities, default=0) >= rung]
    return [entry(t, quality) for t, quality in found if quality is not None]


def leading(entries: Sequence[Entry], quota: int, order: Order, floor: float) -> list[Entry]:
    """The first `quota` of them, best first; of equal points the earliest trial."""
    numbers: dict[Point, list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.number):
        numbers.setdefault(entry.point, []).append(entry)
    found: list[Entry] = []
    for point in order(list(numbers), floor):
        found.extend(numbers[point])
        if len(found) >= quota:
            break
    return found[:quota]


def by_quality(points: Sequence[Point], floor: float) -> Iterator[Point]:
    """Best quality first; between equals the faster one."""
    yield from sorted(points, key=lambda p: (-p[0], p[1]))


def by_dominance(points: Sequence[Point], floor: float) -> Iterator[Point]:
    """Front after front, each by the hypervolume that a point adds to those before it."""
    slower = {latency: rank for rank, latency in enumerate(sorted({p[1] for p in points}))}
    for front in fronts([p for p in points if p[0] > floor]):
        yield from _greedily(front, slower, floor)
    yield from by_quality([p for p in points if p[0] <= floor], floor)


def fronts(points: Sequence[Point]) -> list[list[Point]]:
    """Distinct points in layers, each the front of what the earlier ones leave; within one, fastest first."""
    layers: list[list[Point]] = []
    worst: list[float] = []  # minus the best quality of each layer: it rises from layer to layer
    for quality, latency in sorted(points, key=lambda p: (p[1], -p[0])):
        layer = bisect_right(worst, -quality)
        if layer == len(layers):
            layers.append([])
            worst.append(-quality)
        layers[layer].append((quality, latency))
        worst[layer] = -quality
    return layers


def _greedily(front: Sequence[Point], rank: Mapping[float, int], floor: float) -> Iterator[Point]:
    """Again and again the point that adds the most to those before it: of two close ones, one comes late."""
    taken: list[int] = []

    def gain(i: int) -> float:
        place = bisect_left(taken, i)
        below = front[taken[place - 1]][0] if place else floor
        until = rank[front[taken[place]][1]] if place < len(taken) else len(rank)
        return (front[i][0] - below) * (until - rank[front[i][1]])

    left = list(range(len(front)))
    while left:
        chosen = max(left, key=gain)
        left.remove(chosen)
        insort(taken, chosen)
        yield front[chosen]
