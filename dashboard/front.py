"""Which student is best: axes, filters, budget, front, knee and choice, on columns of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dashboard.queries import studies
from dashboard.queries.studies import Snapshot
from kdsearch.core import pareto
from kdsearch.core.records import Latency, Scores, Standing
from kdsearch.store.columns import Flags, Floats, TrialColumns, Words

STATES = ("complete", "running", "paused")
"""What a chart can show: what has a quality, or may get one."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A figure of a student that a chart can be drawn over."""

    name: str
    """Of the column."""
    label: str
    """On the page and in the URL."""
    unit: str = ""
    log: bool = False
    more_is_better: bool = False

    @property
    def title(self) -> str:
        """As it stands beside the axis."""
        notes = ", ".join(filter(None, [self.unit, "log" if self.log else ""]))
        return f"{self.label} ({notes})" if notes else self.label

    def of(self, trials: TrialColumns) -> Floats:
        """The column."""
        values: Floats = getattr(trials, self.name)
        return values

    def cost(self, trials: TrialColumns) -> Floats:
        """The column such that less is better."""
        return -self.of(trials) if self.more_is_better else self.of(trials)


def _axes(*axes: Axis) -> Mapping[str, Axis]:
    return {axis.name: axis for axis in axes}


QUALITIES = _axes(
    Axis(name="quality", label="quality", more_is_better=True),
    Axis(name="accuracy", label="accuracy", more_is_better=True),
    Axis(name="macro_f1", label="macro-F1", more_is_better=True),
    Axis(name="recall", label="recall of the worst class", more_is_better=True),
    Axis(name="coverage", label="coverage", more_is_better=True),
    Axis(name="agreement", label="agreement with the teacher", more_is_better=True),
)
COSTS = _axes(
    Axis(name="p50_ms", label="latency, p50", unit="ms", log=True),
    Axis(name="p90_ms", label="latency, p90", unit="ms", log=True),
    Axis(name="p99_ms", label="latency, p99", unit="ms", log=True),
    Axis(name="size_mb", label="size", unit="MB", log=True),
    Axis(name="num_params", label="parameters", log=True),
    Axis(name="throughput", label="throughput", unit="texts/s", log=True, more_is_better=True),
)


def of_teacher(axis: Axis, scores: Scores, latency: Latency | None) -> float | None:
    """The teacher's figure on an axis; None where it was not taken, or compares the teacher with itself."""
    if axis.name in QUALITIES:
        told = {"recall": min(scores.recall.values(), default=None), "agreement": None}
        return told[axis.name] if axis.name in told else getattr(scores, axis.name)
    if latency is None:
        return None
    return 1000.0 / latency.mean_ms if axis.name == "throughput" else float(getattr(latency, axis.name))


@dataclass(frozen=True, kw_only=True)
class View:
    """What is asked to be seen: everything in it is in the URL."""

    quality: Axis = QUALITIES["quality"]
    cost: Axis = COSTS["p90_ms"]
    within_ms: float | None = None
    """Budget on the study's own latency figure; applied first, then the front is drawn."""
    students: Sequence[str] = ()
    """Empty: all of them; so below."""
    schemes: Sequence[str] = ()
    states: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a view shows of a snapshot."""

    snapshot: Snapshot
    view: View
    trials: TrialColumns
    """Those that the filters leave and that have a place on the chart, whether or not within the budget."""
    standings: Mapping[int, Standing] = field(default_factory=dict)

    @cached_property
    def x(self) -> Floats:
        """Of the cost axis."""
        return self.view.cost.of(self.trials)

    @cached_property
    def means(self) -> Mapping[int, float]:
        """Quality by number, of trials that were trained with several seeds."""
        return {n: s.quality for n, s in self.standings.items() if len(s.seeds) > 1}

    @cached_property
    def objective(self) -> Floats:
        """The study's quality; of what was trained with several seeds their mean."""
        told = self.trials.quality.copy()
        for number, mean in self.means.items():
            told[self.trials.number == number] = mean
        return told

    @cached_property
    def y(self) -> Floats:
        """Of the quality axis."""
        return self.objective if self.view.quality.name == "quality" else self.view.quality.of(self.trials)

    @cached_property
    def finished(self) -> Flags:
        """Which have a place as what they are: complete, with both figures."""
        return np.asarray(self.trials.complete & np.isfinite(self.x) & np.isfinite(self.y), np.bool_)

    @cached_property
    def inside(self) -> Flags:
        """Finished, within the study's limits and the budget."""
        own = getattr(self.trials, self.snapshot.study.latency_name)
        budget = np.inf if self.view.within_ms is None else self.view.within_ms
        return np.asarray(self.finished & self.trials.feasible & (own <= budget), np.bool_)

    @cached_property
    def front(self) -> Sequence[int]:
        """Positions of what nothing else beats, cheapest first."""
        where = np.flatnonzero(self.inside)
        costs = self.view.cost.cost(self.trials)[where]
        kept = pareto.front(list(zip(self.y[where].tolist(), costs.tolist(), strict=True)))
        return [int(where[i]) for i in kept]

    @cached_property
    def best(self) -> int | None:
        """Position of the student to deploy, as `kdsearch best` chooses; None where none is in budget.

        Where trials were trained with several seeds, the best mean among those: the quality of a single
        training was chosen for being high. Of equals the faster one.
        """
        where = np.flatnonzero(self.inside)
        if not len(where):
            return None
        own = getattr(self.trials, self.snapshot.study.latency_name)
        sure = [int(i) for i in where if int(self.trials.number[i]) in self.means]

        def rank(i: int) -> tuple[float, float, int]:
            number = int(self.trials.number[i])
            return self.means.get(number, float(self.trials.quality[i])), -float(own[i]), -number

        return max(sure or [int(i) for i in where], key=rank)

    @property
    def best_number(self) -> int | None:
        """Of the trial to deploy."""
        return None if self.best is None else int(self.trials.number[self.best])

    @cached_property
    def knee(self) -> int | None:
        """Position of the front's point farthest above the chord between its ends; None if there is none."""
        return knee(self.front, self.view.cost.of(self.trials), self.y, log=self.view.cost.log)

    def place(self, number: int | None) -> int | None:
        """Position of a trial; None where the chart has no place for it."""
        if number is None:
            return None
        found = np.flatnonzero(self.trials.number == number)
        return int(found[0]) if len(found) else None

    def standings_of(self, where: Any) -> Words:
        """In a word, at these positions."""
        on_front = np.isin(where, list(self.front))
        within = np.where(on_front, "on the front", np.where(self.inside[where], "dominated", "over a limit"))
        words: Words = np.where(self.finished[where], within, self.trials.state[where])
        return words


def knee(front: Sequence[int], x: Floats, y: Floats, *, log: bool) -> int | None:
    """The point of a front with the greatest distance to the chord between its ends, both axes from 0 to 1.

    A suggestion: from there on a little quality costs much. None where the front has fewer than three points.
    """
    if len(front) < 3:
        return None
    costs = np.log10(x[list(front)]) if log else x[list(front)]
    across, up = (_unit(values) for values in (costs, y[list(front)]))
    slope = up[-1] - up[0], across[-1] - across[0]
    above = (up - up[0]) * slope[1] - (across - across[0]) * slope[0]
    above *= np.sign(slope[1]) or 1.0  # a front over throughput runs from right to left
    return int(front[int(np.argmax(above))]) if above.max() > 0 else None


def _unit(values: Floats) -> Floats:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / ((high - low) or 1.0), np.float64)


def drawn(snapshot: Snapshot, view: View) -> Drawn:
    """What a view shows: filter first, then the front."""
    trials = snapshot.trials
    kept = np.isin(trials.state, view.states or STATES)
    for asked, column in ((view.students, trials.student), (view.schemes, trials.scheme)):
        if asked:
            kept &= np.isin(column, asked)
    kept &= np.isfinite(view.cost.of(trials))
    return Drawn(snapshot=snapshot, view=view, trials=trials.where(kept), standings=snapshot.standings)


def budgets(snapshot: Snapshot, most: int = 60) -> list[float]:
    """Latencies worth asking for, ascending: between the fastest and the slowest, evenly on a log scale."""
    own = getattr(snapshot.trials, snapshot.study.latency_name)
    known = own[np.isfinite(own) & (own > 0)]
    limit = studies.limit_ms(snapshot.study)
    if not len(known):
        return [] if limit is None else [limit]
    high = max(float(known.max()) * 1.05, limit or 0.0)
    steps = np.geomspace(float(known.min()), high, most)
    return sorted({rounded_up(step) for step in steps})


def rounded_up(value: float) -> float:
    """To two digits, never below: a budget just at a trial's latency still admits it."""
    digits = 1 - int(np.floor(np.log10(value)))
    return float(np.round(np.ceil(np.round(value * 10.0**digits, 9)) / 10.0**digits, max(digits, 0)))
