"""Arithmetic of the Pareto front: quality is maximised, latency (ms) is minimised."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
"""(quality, latency_ms)."""


def front(points: Sequence[Point]) -> list[int]:
    """Positions of the non-dominated points, fastest first.

    A point is dominated when another is at least as good in both and better in one. Of equal
    points all stay.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    kept: list[int] = []
    for i in order:
        quality, latency = points[i]
        if not kept or quality > points[kept[-1]][0] or (quality, latency) == points[kept[-1]]:
            kept.append(i)
    return kept


def staircase(points: Sequence[Point], latency_ms: float) -> float:
    """Best quality among the points that are at most as slow; minus infinity if there is none."""
    return max((q for q, latency in points if latency <= latency_ms), default=float("-inf"))


def hypervolume(points: Sequence[Point], *, reference: Point) -> float:
    """Area between the front and the reference (worst quality, worst latency); 0 if none is better."""
    worst_quality, worst_latency = reference
    inside = [p for p in points if p[0] > worst_quality and p[1] < worst_latency]
    steps = [inside[i] for i in front(inside)]
    area, floor = 0.0, worst_quality
    for quality, latency in steps:
        area += max(0.0, quality - floor) * (worst_latency - latency)
        floor = max(floor, quality)
    return area
