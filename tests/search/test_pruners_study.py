"""What early stopping costs and saves on made-up learning curves that cross: no claim about real ones.

Slow students end better and start worse; schemes have their own pace, one is not scored at first; a low
learning rate starts slower; every training has noise. Trials are drawn at random and trained by workers at
their own speed; whoever comes to a rung is judged on what is known by then.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from kdsearch.core.pareto import front, hypervolume
from kdsearch.core.records import TrialConfig, Tried
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.pruners.base import Ladder, Pruner, Situation

LADDER = Ladder(rungs=(1, 3), epochs=9, factor=3)
FLOOR = 0.5
STUDENTS = {"bag": (0.05, 0.84, 0.8), "textcnn": (0.4, 0.88, 1.5), "bilstm": (3.0, 0.91, 3.0)}
"""Milliseconds, quality in the end, epochs until it is there but for a third."""
SCHEMES = {"none": (0.0, 1.0, 0), "offline": (0.015, 1.6, 0), "hint": (0.02, 1.2, 1)}
"""Added quality, slowness, epochs that are not scored."""


@dataclass(frozen=True)
class Made:
    """A trial before it is trained: all that will be seen of it."""

    tried: Tried
    curve: dict[int, float]

    @property
    def final(self) -> float:
        return max(self.curve.values())


def made(number: int, rng: np.random.Generator) -> Made:
    student = str(rng.choice(list(STUDENTS)))
    scheme = str(rng.choice(list(SCHEMES)))
    latency, top, pace = STUDENTS[student]
    width = float(rng.choice([0.5, 1.0, 2.0]))
    gain, slowness, unscored = SCHEMES[scheme]
    rate = float(np.exp(rng.uniform(np.log(1e-4), np.log(5e-3))))
    off = np.log(rate / 1e-3)
    top += gain + 0.01 * np.log2(width) - 0.012 * off**2 + rng.normal(0, 0.008)
    pace *= slowness * np.exp(-0.35 * off) * np.exp(rng.normal(0, 0.2))
    epochs = np.arange(1, LADDER.epochs + 1)
    quality = top - (top - 0.5) * np.exp(-epochs / pace) + rng.normal(0, 0.004, LADDER.epochs)
    config = TrialConfig(
        student=student,
        student_params={"width": width},
        scheme=scheme,
        scheme_params={},
        learning_rate=rate,
        batch_size=32,
        epochs=LADDER.epochs,
        seed=17,
    )
    curve = {int(e): float(np.clip(q, 0, 1)) for e, q in zip(epochs, quality, strict=True) if e > unscored}
    tried = Tried(number=number, config=config, state="running", latency_ms=latency * width, qualities={})
    return Made(tried, curve)


@dataclass(frozen=True)
class Outcome:
    """A study that was played to its end."""

    saved: float
    """Share of the epochs that no pruner would have taken."""
    stopped: int
    wrong: int
    """Of those stopped, trials on the front of all trials trained to their end."""
    lost: float
    """Share of the hypervolume that is missing."""
    recalled: int


class Played:
    """An asynchronous study, through nothing but `judge` and `promotions`."""

    def __init__(self, pruner: Pruner, trials: list[Made]) -> None:
        self.pruner, self.trials, self.fresh = pruner, trials, iter(trials)
        self.now: dict[int, Tried] = {}
        self.events: list[tuple[float, int]] = []
        self.run = dict.fromkeys(range(len(trials)), 0)
        self.recalled = 0

    def play(self, workers: int) -> Outcome:
        for _ in range(workers):
            self.employ(0.0)
        while self.events:
            at, number = heapq.heappop(self.events)
            self.train(number)
            if self.now[number].state == "running":
                self.begin(number, at)
            else:
                self.employ(at)
        return self.outcome()

    def situation(self) -> Situation:
        return Situation(tried=tuple(self.now.values()), ladder=LADDER, quality_floor=FLOOR)

    def begin(self, number: int, at: float) -> None:
        heapq.heappush(self.events, (at + 1.0 + 0.2 * (self.now[number].latency_ms or 0.0), number))

    def employ(self, at: float) -> None:
        called = next(iter(self.pruner.promotions(self.situation())), None)
        found = self.now[called[0]] if called is not None else None
        if found is not None:
            self.recalled += 1
        else:
            new = next(self.fresh, None)
            found = new.tried if new is not None else None
        if found is not None:
            self.now[found.number] = replace(found, state="running")
            self.begin(found.number, at)

    def train(self, number: int) -> None:
        self.run[number] += 1
        epochs, made = self.run[number], self.trials[number]
        own = replace(self.now[number], qualities={e: q for e, q in made.curve.items() if e <= epochs})
        if epochs == LADDER.epochs:
            own = replace(own, state="complete", quality=made.final)
        elif epochs in LADDER.rungs and self.pruner.judge(own, self.situation()).action == "pause":
            own = replace(own, state="paused")
        self.now[number] = own

    def outcome(self) -> Outcome:
        points = [(m.final, m.tried.latency_ms or 0.0) for m in self.trials]
        stopped = {t.number for t in self.now.values() if t.state == "paused"}
        log = [(q, float(np.log(ms))) for q, ms in points]
        reference = (FLOOR, float(np.log(12.0)))
        left = hypervolume([p for n, p in enumerate(log) if n not in stopped], reference=reference)
        return Outcome(
            saved=1 - sum(self.run.values()) / (LADDER.epochs * len(self.trials)),
            stopped=len(stopped),
            wrong=len(stopped & set(front(points))),
            lost=1 - left / hypervolume(log, reference=reference),
            recalled=self.recalled,
        )


def play(name: str, seed: int, *, num_trials: int = 60, workers: int = 4) -> Outcome:
    rng = np.random.default_rng(seed)
    return Played(PRUNERS[name](), [made(n, rng) for n in range(num_trials)]).play(workers)


@cache
def studies(name: str) -> tuple[Outcome, ...]:
    return tuple(play(name, seed) for seed in range(12))


def saved(name: str) -> float:
    return float(np.mean([o.saved for o in studies(name)]))


def wrong(name: str) -> float:
    return sum(o.wrong for o in studies(name)) / sum(o.stopped for o in studies(name))


def lost(name: str) -> float:
    return float(np.mean([o.lost for o in studies(name)]))


def test_the_safe_rule_seldom_stops_what_belongs_on_the_front_and_saves_all_the_same() -> None:
    assert sum(o.stopped for o in studies("front")) > 100
    assert wrong("front") <= 0.03
    assert saved("front") >= 0.15
    assert lost("front") <= 0.005


def test_halving_saves_more_and_errs_more() -> None:
    for name in ("mo_asha", "mo_asha_promotion"):
        assert saved(name) > saved("front") + 0.1
        assert wrong(name) > wrong("front")
        assert lost(name) > lost("front")


def test_who_knows_no_latency_loses_more_of_the_front() -> None:
    assert lost("asha") > lost("mo_asha")


def test_without_a_pruner_nothing_is_saved_or_lost() -> None:
    assert {(o.saved, o.stopped, o.lost) for o in studies("none")} == {(0.0, 0, 0.0)}


def test_those_that_call_back_do_so() -> None:
    assert sum(o.recalled for o in studies("mo_asha_promotion")) > 0
    assert sum(o.recalled for o in studies("mo_asha")) == 0
