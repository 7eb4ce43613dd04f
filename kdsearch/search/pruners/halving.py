"""Asynchronous successive halving (Li et al. 2020) for any order of the trials at a rung.

One of `factor` of all trials that have reached a rung goes on, at least one. Stopping type: a trial is
judged when it arrives and never called back. Promotion type: a trial that is not among the leaders waits,
and is called back once later arrivals make room for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsearch.core.records import Decision, Tried
from kdsearch.search.pruners.base import Figure, Situation, keep_on
from kdsearch.search.pruners.ranking import Entry, Order, at_rung, entry, leading


@dataclass(frozen=True)
class Halving:
    """One of `factor` goes on, by `order`."""

    rule: str
    order: Order
    needs_latency: bool
    """Whether a trial of unknown latency cannot be judged, and goes on."""
    promotes: bool

    def judge(self, trial: Tried, situation: Situation) -> Decision:
        """Go on among the leaders of the last rung reached; otherwise pause."""
        rung = situation.ladder.reached(trial)
        quality = None if rung is None else trial.best_by(rung)
        if rung is None or quality is None:
            return keep_on(self.rule, "no rung with a scored epoch is reached yet")
        if self.needs_latency and trial.latency_ms is None:
            return keep_on(self.rule, "its latency is not known yet", epoch=rung)
        others = [t for t in situation.tried if t.number != trial.number]
        own = entry(trial, quality)
        entries = [own, *at_rung(others, rung)]
        leaders = self._leaders(entries, situation)
        # a tie with a leader is no reason to stop for good; where a paused trial is called back, it waits
        ahead = own in leaders if self.promotes else own.point in [e.point for e in leaders]
        place = leaders.index(own) + 1 if own in leaders else None
        words = (
            f"{'among' if ahead else 'not among'} the best {len(leaders)} of {len(entries)} at epoch {rung}"
        )
        inputs = _inputs(own, len(entries), len(leaders), place)
        if ahead:
            return keep_on(self.rule, words, epoch=rung, inputs=inputs)
        return Decision(action="pause", rule=self.rule, reason=words, epoch=rung, inputs=inputs)

    def promotions(self, situation: Situation) -> Sequence[tuple[int, Decision]]:
        """Paused leaders of the rung at which they wait: the highest rung first, there the best first."""
        if not self.promotes:
            return ()
        waiting = {t.number: situation.ladder.reached(t) for t in situation.tried if t.state == "paused"}
        found: list[tuple[int, Decision]] = []
        for rung in sorted({rung for rung in waiting.values() if rung is not None}, reverse=True):
            entries = at_rung(situation.tried, rung)
            leaders = self._leaders(entries, situation)
            for place, leader in enumerate(leaders, start=1):
                if waiting.get(leader.number) == rung:
                    words = f"now among the best {len(leaders)} of {len(entries)} at epoch {rung}"
                    inputs = _inputs(leader, len(entries), len(leaders), place)
                    decision = Decision(
                        action="promote", rule=self.rule, reason=words, epoch=rung, inputs=inputs
                    )
                    found.append((leader.number, decision))
        return found

    def _leaders(self, entries: Sequence[Entry], situation: Situation) -> list[Entry]:
        quota = max(1, len(entries) // situation.ladder.factor)
        return leading(entries, quota, self.order, situation.quality_floor)


def _inputs(entry: Entry, num_trials: int, num_leaders: int, place: int | None) -> dict[str, Figure]:
    quality, latency = entry.point
    return {
        "quality": quality,
        "latency_ms": latency if latency < float("inf") else None,
        "num_trials": num_trials,
        "num_leaders": num_leaders,
        "place": place,
    }
