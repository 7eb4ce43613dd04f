"""Who is trained again with further seeds: the front, thinned out where it is long, and the controls.

Notable:
- A front that is longer than the study allows loses, one by one, the member that adds least to the
  hypervolume of those still there (latency on a log scale, as everywhere in the search). The two ends add
  something to any reference point and stay: the fastest, and the best.
- Of each student type the best `none` comes beside them: without it nobody could say whether distilling paid.
  It is the best of all complete trials with `none`, as a member of the front is the best of all others. That
  the best of several trials looks better than it is holds for both sides, and further seeds undo it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from kdsearch.core.pareto import front
from kdsearch.core.records import Tried
from kdsearch.core.spec import FinalistsSpec

CONTROL = "none"


def choose(tried: Sequence[Tried], spec: FinalistsSpec) -> list[int]:
    """Numbers of the finalists: the front, fastest first, then controls that are not on it, by student."""
    complete = [trial for trial in tried if _point(trial) is not None]
    chosen = _thinned(complete, spec.max)
    return chosen + [number for number in _controls(complete) if number not in chosen]


def _point(trial: Tried) -> tuple[float, float] | None:
    """(quality, log latency) of a trial that has come to its end."""
    if trial.state != "complete" or trial.quality is None or trial.latency_ms is None:
        return None
    return trial.quality, log(max(trial.latency_ms, 1e-9))


def _thinned(complete: Sequence[Tried], limit: int) -> list[int]:
    points = [point for trial in complete if (point := _point(trial)) is not None]
    members = front(points)
    if limit == 1:
        members = members[-1:]
    while len(members) > limit:
        inner = range(1, len(members) - 1)
        least = min(inner, key=lambda i: _gain(*(points[m] for m in members[i - 1 : i + 2])))
        del members[least]
    return [complete[member].number for member in members]


def _gain(before: tuple[float, float], own: tuple[float, float], after: tuple[float, float]) -> float:
    """Hypervolume that is a member's alone, between the next faster and the next slower one."""
    return (own[0] - before[0]) * (after[1] - own[1])


def _controls(complete: Sequence[Tried]) -> list[int]:
    best: dict[str, Tried] = {}
    for trial in complete:
        if trial.config.scheme == CONTROL:
            student = trial.config.student
            best[student] = max(best.get(student, trial), trial, key=_merit)
    return [best[student].number for student in sorted(best)]


def _merit(trial: Tried) -> tuple[float, float, int]:
    """By quality; of equally good ones the faster, then the earlier."""
    quality, latency = _point(trial) or (float("-inf"), float("inf"))
    return quality, -latency, -trial.number
