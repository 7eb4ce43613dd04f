"""Whether the front has stopped growing: the share of the hypervolume that the last trials added."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdsearch.core.pareto import Point, hypervolume
from kdsearch.core.records import Tried
from kdsearch.core.spec import PlateauSpec

COUNTED = ("complete", "paused", "stopped")
"""Trials that were looked at for their quality; a rejected or failed one says nothing about the front."""


def is_flat(tried: Sequence[Tried], spec: PlateauSpec, quality_floor: float) -> bool:
    """True where the last `spec.trials` trials, by number, added less than `spec.gain` of the hypervolume.

    Hypervolume of (quality, log latency), above the floor and up to twice the slowest trial's latency:
    halving a latency counts the same everywhere. With nothing above the floor there is no front to be flat.
    """
    done = sorted((t for t in tried if t.state in COUNTED), key=lambda t: t.number)
    if len(done) <= spec.trials:
        return False
    earlier, points = _points(done[: -spec.trials]), _points(done)
    if not points:
        return False
    reference = (quality_floor, max(latency for _, latency in points) + math.log(2.0))
    whole = hypervolume(points, reference=reference)
    added = whole - hypervolume(earlier, reference=reference)
    return whole > 0.0 and (added <= 0.0 or added < spec.gain * whole)


def _points(trials: Sequence[Tried]) -> list[Point]:
    done = [t for t in trials if t.state == "complete"]
    return [(t.quality, math.log(t.latency_ms)) for t in done if t.quality is not None and t.latency_ms]
