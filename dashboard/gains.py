"""What distilling gained: the best of each scheme against the best `none` of the same student."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kdsearch.core.records import Standing
from kdsearch.store.columns import TrialColumns

CONTROL = "none"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Quality of the best student of a scheme minus that of the best control."""

    student: str
    scheme: str
    gain: float
    low: float | None
    """95 % interval; None where one of the two was trained once and never resampled."""
    high: float | None
    trial: int
    control: int
    tried: int
    """Complete trials of this student and scheme, of which this one is the best."""
    tried_control: int
    seeds: int
    """Trainings behind the figures, of the one that has fewer."""


class _Trial(NamedTuple):
    number: int
    quality: float


def gains(trials: TrialColumns, standings: Mapping[int, Standing]) -> list[Gain]:
    """One per student and scheme that have a complete trial and a control, by student and scheme."""
    arms: dict[tuple[str, str], list[_Trial]] = {}
    for i in np.flatnonzero(trials.complete & np.isfinite(trials.quality)):
        arm = arms.setdefault((trials.student[i], trials.scheme[i]), [])
        arm.append(_Trial(int(trials.number[i]), float(trials.quality[i])))
    return [
        _gain((student, scheme), own, arms[student, CONTROL], standings)
        for (student, scheme), own in sorted(arms.items())
        if scheme != CONTROL and (student, CONTROL) in arms
    ]


def _gain(
    arm: tuple[str, str], own: Sequence[_Trial], controls: Sequence[_Trial], standings: Mapping[int, Standing]
) -> Gain:
    sure, sure_control = _surest(own, standings), _surest(controls, standings)
    low: float | None = None
    high: float | None = None
    if sure is not None and sure_control is not None:
        gain, low, high = _difference(sure, sure_control)
        trial, control = sure.number, sure_control.number
        seeds = min(len(sure.seeds), len(sure_control.seeds))
    else:
        best, plain = _best(own), _best(controls)
        gain = best.quality - plain.quality
        trial, control, seeds = best.number, plain.number, 1
    return Gain(
        student=arm[0],
        scheme=arm[1],
        gain=gain,
        low=low,
        high=high,
        trial=trial,
        control=control,
        tried=len(own),
        tried_control=len(controls),
        seeds=seeds,
    )


def _best(rows: Sequence[_Trial]) -> _Trial:
    return max(rows, key=lambda row: (row.quality, -row.number))


def _surest(rows: Sequence[_Trial], standings: Mapping[int, Standing]) -> Standing | None:
    """The best one of those whose interval is known."""
    known = [standings[row.number] for row in rows if row.number in standings]
    return max(known, key=lambda standing: (standing.quality, -standing.number), default=None)


def _difference(one: Standing, other: Standing) -> tuple[float, float, float]:
    """Difference of two means with its interval, from theirs (Zou and Donner 2008).

    As if the two were independent; both are scored on the same rows, so that the interval is rather wide.
    """
    gain = one.quality - other.quality
    below = math.hypot(one.quality - one.low, other.high - other.quality)
    above = math.hypot(one.high - one.quality, other.quality - other.low)
    return gain, gain - below, gain + above
