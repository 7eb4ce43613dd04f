"""Plays a search on a table: workers that train, a sampler and a pruner that decide, in the order of events.

Nothing is trained: an epoch takes the seconds that the table recorded and gives the quality that it recorded.
Each worker is asked for its next trial as soon as it is free, without waiting for the others; samplers see
the trials that run elsewhere, pruners the epochs that are known by then. The same seed gives the same replay.

The budget is counted as a study's own: a trial that runs has its whole training reserved, a paused one what
it ran, so that any number of workers never sees a row more, and no trial is cut off. Deciding takes no time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from benchmarks.search.truth import Curve, Truth
from kdsearch.core.records import TrialConfig, Tried
from kdsearch.search.known import Known
from kdsearch.search.pruners.base import Ladder, Pruner, Situation

Clock = Literal["seconds", "rows"]
"""What an epoch takes: what was recorded, or always the same, as if rows were time."""
Latencies = Callable[[TrialConfig], float | None]


class Asker(Protocol):
    """Chooses among the rows of a table; a wrapped sampler."""

    def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
        """The row that trial ``number`` trains; it is not empty what there is to choose from."""
        ...

    def tell(self, trial: Tried) -> None:
        """A trial that ended, whichever way."""
        ...


@dataclass
class Play:
    """One trial of a replay."""

    row: int
    curve: Curve
    tried: Tried
    epochs_run: int = 0


@dataclass(frozen=True)
class Ended:
    """A trial that was trained to its end."""

    epochs: int
    """Of all trials, when this one ended."""
    seconds: float
    row: int
    quality: float
    """As seen by the search, under the seed it had."""


@dataclass(frozen=True)
class Story:
    """All that happened."""

    ended: tuple[Ended, ...]
    """In order."""
    stopped: tuple[int, ...]
    """Rows of trials that were paused for good."""
    num_trials: int
    num_failed: int
    num_promoted: int
    epochs: int
    """Of all trials: times rows per epoch, the rows seen."""
    seconds: float
    """When the last worker ended."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for every method of a replay."""

    truth: Truth
    workers: int
    budget_epochs: int
    ladder: Ladder
    seed: int
    """Of the draw of each configuration's training among the recorded ones."""
    clock: Clock = "seconds"


class Simulator:
    """One replay."""

    def __init__(self, setting: Setting, asker: Asker, pruner: Pruner, latency_of: Sequence[float]) -> None:
        """``latency_of``: what the search is told of each row, once it has been measured."""
        self.setting = setting
        self.asker = asker
        self.pruner = pruner
        self.latency_of = latency_of
        self.plays: list[Play] = []
        self.ended: list[Ended] = []
        self.epochs = 0
        self.now = 0.0
        self.num_promoted = 0
        table = setting.truth.table
        rng = np.random.default_rng([setting.seed, 1])
        self._seed_C = rng.integers(len(table.seeds), size=len(table.configs))
        self._untried = list(setting.truth.rows)
        self._events: list[tuple[float, int, int, int]] = []
        self._order = 0
        self._idle = list(range(setting.workers))

    def run(self, latencies: Callable[[Simulator], Latencies]) -> Story:
        """Until the budget is spent or the table is; ``latencies`` says what figures are known by now."""
        self._latencies = latencies(self)
        self._employ()
        while self._events:
            self.now, _, worker, number = heapq.heappop(self._events)
            if not self._epoch_ended(worker, number):
                self._idle.append(worker)
                self._idle.sort()
            self._employ()
        return self._close()

    # ---------------------------------------------------------------- workers

    def _employ(self) -> None:
        """Every idle worker gets a trial, as long as there are any."""
        while self._idle:
            number = self._next()
            if number is None:
                return
            self._begin(self._idle.pop(0), number)

    def _next(self) -> int | None:
        """A paused trial that is called back, else a new one."""
        for number, _ in self.pruner.promotions(self._situation()):
            play = self.plays[number]
            if play.tried.state == "paused" and self._affords(self._num_epochs - play.epochs_run):
                self.num_promoted += 1
                return number
        if self._untried and self._affords(self._num_epochs):
            return self._ask()
        return None

    def _affords(self, epochs: int) -> bool:
        reserved = sum(
            self._num_epochs if play.tried.state == "running" else play.epochs_run for play in self.plays
        )
        return reserved + epochs <= self.setting.budget_epochs

    def _ask(self) -> int:
        number = len(self.plays)
        row = self.asker.ask(number, self.known(), tuple(self._untried))
        self._untried.remove(row)
        truth = self.setting.truth
        tried = Tried(
            number=number,
            config=truth.table.configs[row],
            state="waiting",
            latency_ms=float(self.latency_of[row]),
            qualities={},
        )
        self.plays.append(Play(row, truth.curve(row, int(self._seed_C[row])), tried))
        return number

    def _begin(self, worker: int, number: int) -> None:
        play = self.plays[number]
        play.tried = replace(play.tried, state="running")
        self._train(worker, number)

    def _train(self, worker: int, number: int) -> None:
        play = self.plays[number]
        recorded = self.setting.clock == "seconds"
        takes = float(play.curve.seconds_E[play.epochs_run]) if recorded else 1.0
        self._order += 1
        heapq.heappush(self._events, (self.now + takes, self._order, worker, number))

    # ---------------------------------------------------------------- trials

    def _epoch_ended(self, worker: int, number: int) -> bool:
        """Whether the worker goes on with the trial."""
        play = self.plays[number]
        play.epochs_run += 1
        self.epochs += 1
        if play.curve.broke_in == play.epochs_run:
            self._end(play, replace(play.tried, state="failed"))
            return False
        quality = float(play.curve.qualities_E[play.epochs_run - 1])
        if not np.isnan(quality):
            qualities = {**play.tried.qualities, play.epochs_run: quality}
            play.tried = replace(play.tried, qualities=qualities)
        if play.epochs_run == self._num_epochs:
            best = play.tried.best_by(self._num_epochs)
            self._end(play, replace(play.tried, state="complete", quality=best))
            return False
        if self._pauses(play):
            play.tried = replace(play.tried, state="paused")
            return False
        self._train(worker, number)
        return True

    def _pauses(self, play: Play) -> bool:
        if play.epochs_run not in self.setting.ladder.rungs:
            return False
        return self.pruner.judge(play.tried, self._situation()).action == "pause"

    def _end(self, play: Play, tried: Tried) -> None:
        play.tried = tried
        if tried.state == "complete" and tried.quality is not None:
            self.ended.append(Ended(self.epochs, self.now, play.row, tried.quality))
        self.asker.tell(tried)

    def _close(self) -> Story:
        stopped = [play for play in self.plays if play.tried.state == "paused"]
        for play in stopped:
            self._end(play, replace(play.tried, state="stopped"))
        return Story(
            ended=tuple(self.ended),
            stopped=tuple(play.row for play in stopped),
            num_trials=len(self.plays),
            num_failed=sum(play.tried.state == "failed" for play in self.plays),
            num_promoted=self.num_promoted,
            epochs=self.epochs,
            seconds=self.now,
        )

    # ---------------------------------------------------------------- what is known

    def known(self) -> Known:
        """For whoever proposes."""
        return Known(
            tried=tuple(play.tried for play in self.plays),
            latency_ms=self._latencies,
            quality_floor=self.setting.truth.floor,
        )

    def _situation(self) -> Situation:
        return Situation(
            tried=tuple(play.tried for play in self.plays),
            ladder=self.setting.ladder,
            quality_floor=self.setting.truth.floor,
        )

    @property
    def _num_epochs(self) -> int:
        return self.setting.truth.table.num_epochs
