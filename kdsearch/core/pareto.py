"""Arithmetic of the Pareto front: quality is maximised, latency (ms) is minimised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

Point = tuple[float, float]
"""(quality, latency_ms)."""

SURE = 1e-12
"""A standard deviation up to this is none."""


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


def expected_improvement(
    points: Sequence[Point], *, mean: Any, sd: Any, latency_ms: Any, reference: Point
) -> FloatArray:
    """Expected growth of the area under the front in the plane of (quality, log latency), exactly.

    Of a student whose latency is known and whose quality is normal with this mean and standard deviation
    (arrays that broadcast; sd may be 0). The reference is the worst quality and latency that count. With A(v)
    the staircase at log latency v, quality q adds the integral of max(0, q - A(v)) over all v from the
    student's own to the reference's; A is constant on a few steps, and each step's share is its width times
    the expected improvement sd * h((mean - A) / sd), h(z) = z * Phi(z) + phi(z).
    """
    import numpy as np

    worst_quality, worst_latency = reference
    inside = [p for p in points if p[0] > worst_quality and p[1] < worst_latency]
    steps = [inside[i] for i in front(inside)]
    heights = [worst_quality, *(quality for quality, _ in steps)]
    edges = [-np.inf, *(float(np.log(latency)) for _, latency in steps), float(np.log(worst_latency))]
    mean, sd, place = np.broadcast_arrays(
        np.asarray(mean, np.float64), np.asarray(sd, np.float64), np.log(np.asarray(latency_ms, np.float64))
    )
    area = np.zeros(mean.shape)
    for height, left, right in zip(heights, edges[:-1], edges[1:], strict=True):
        width = np.maximum(0.0, right - np.maximum(left, place))
        area += width * _improvement(mean - height, sd)
    return area


def _improvement(gap: FloatArray, sd: FloatArray) -> FloatArray:
    """E[max(0, gap + sd * N(0, 1))]; precise in the tail, where the textbook formula cancels to noise."""
    import numpy as np
    from scipy.special import erfcx

    spread = np.maximum(sd, SURE)
    z = np.minimum(np.abs(gap / spread), 1e6)
    tail = 1.0 - z * np.sqrt(np.pi / 2) * erfcx(z / np.sqrt(2))
    upper = spread * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * np.maximum(tail, 0.0)
    return np.asarray(np.maximum(gap, 0.0) + np.where(sd > SURE, upper, 0.0), np.float64)
