"""How the front grew: hypervolume after every trial, and the trials that had finished by some moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from kdsearch.core import pareto
from kdsearch.core.pareto import Point
from kdsearch.store.columns import Flags, TrialColumns
from kdsearch.store.reads import StudyRow


@dataclass(frozen=True)
class Step:
    """A trial that made the front grow."""

    number: int
    finished: int
    """How many trials had finished by then, this one included."""
    at: datetime
    area: float
    """Under the front from then on, as a share of today's."""


@dataclass(frozen=True)
class Progress:
    """The growth of the front."""

    steps: tuple[Step, ...]
    finished: int
    """Trials that have finished until today, in whatever state."""
    until: datetime | None
    """When the last one did; None before the first one."""
    reference: Point | None
    """The quality and latency (ms) from which the area is measured; None without a trial that counts."""


def in_order(trials: TrialColumns) -> list[int]:
    """Places of the trials that have finished, as they did."""
    done = [(at, place) for place, at in enumerate(trials.finished_at) if at is not None]
    return [place for _, place in sorted(done)]


def by_then(trials: TrialColumns, finished: int) -> Flags:
    """The first trials to finish."""
    kept = np.zeros(len(trials), np.bool_)
    kept[in_order(trials)[:finished]] = True
    return kept


def front_of(trials: TrialColumns, latency_name: str) -> list[int]:
    """Places of the front's members: what can be deployed and no other beats, fastest first."""
    points = _points(trials, latency_name)
    places = list(points)
    return [places[i] for i in pareto.front(list(points.values()))]


def of(study: StudyRow, trials: TrialColumns) -> Progress:
    """Hypervolume of (quality, log latency), the plane in which the search itself looks for growth.

    Measured from the quality floor of the study, or else from the worst student that counts, and from twice
    the slowest one's latency: a point of reference that stays, so that the area never falls.
    """
    order, points = in_order(trials), _points(trials, study.latency_name)
    until = trials.finished_at[order[-1]] if order else None
    if not points:
        return Progress((), len(order), until, None)
    reference = _reference(study, list(points.values()))
    steps = _steps(trials, order, points, reference)
    whole = steps[-1].area if steps else 0.0
    shares = tuple(Step(s.number, s.finished, s.at, s.area / whole if whole else 0.0) for s in steps)
    return Progress(shares, len(order), until, (reference[0], math.exp(reference[1])))


def _points(trials: TrialColumns, latency_name: str) -> dict[int, Point]:
    """(quality, log latency) of the students that can be deployed, by their place."""
    latencies = getattr(trials, latency_name)
    counted = trials.complete & trials.feasible & np.isfinite(trials.quality) & (latencies > 0)
    return {
        int(i): (float(trials.quality[i]), math.log(float(latencies[i]))) for i in np.flatnonzero(counted)
    }


def _reference(study: StudyRow, points: Sequence[Point]) -> Point:
    floor = (study.spec.get("search") or {}).get("quality_floor")
    worst = min(quality for quality, _ in points)
    slowest = max(latency for _, latency in points)
    return (worst if floor is None else float(floor)), slowest + math.log(2.0)


def _steps(
    trials: TrialColumns, order: Sequence[int], points: Mapping[int, Point], reference: Point
) -> list[Step]:
    front: list[Point] = []
    steps: list[Step] = []
    for finished, place in enumerate(order, start=1):
        point = points.get(place)
        if point is None or pareto.staircase(front, point[1]) >= point[0]:
            continue
        grown = [*front, point]
        front = [grown[i] for i in pareto.front(grown)]
        area = pareto.hypervolume(front, reference=reference)
        steps.append(Step(int(trials.number[place]), finished, trials.finished_at[place], area))
    return steps
