"""`front`: pauses a trial only when even its forecast's upper bound stays under the staircase at its latency.

Latency is known before training, so a trial ends on the front exactly if its final quality beats the best
quality among the completed trials that are at most as slow. That number only rises; the forecast can be
wrong, so a pause is no end: when the bound is above the staircase again, the trial is called back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from kdsearch.core.pareto import front
from kdsearch.core.records import Decision, Tried
from kdsearch.search.forecast import LEVEL, Forecast, Forecaster
from kdsearch.search.pruners.base import Figure, Situation, keep_on

RULE = "front"
MARGIN = 0.25
"""Standard deviations by which a paused trial's bound must clear the staircase, lest it goes to and fro."""


class FrontPruner:
    """The safe rule: it needs ten completed trials, one of them of the same scheme and student."""

    def judge(self, trial: Tried, situation: Situation) -> Decision:
        """Pause what cannot reach the front any more."""
        rung = situation.ladder.reached(trial)
        if rung is None:
            return keep_on(RULE, "no rung with a scored epoch is reached yet")
        if trial.latency_ms is None:
            return keep_on(RULE, "its latency is not known yet", epoch=rung)
        others = [t for t in situation.tried if t.number != trial.number]
        forecaster = Forecaster.of(others, rung)
        if forecaster is None or not forecaster.knows(trial):
            return keep_on(RULE, "too few trials like it went to their end for a forecast", epoch=rung)
        forecast = forecaster.forecast(trial)
        bar = _Bars(others, situation.quality_floor).at(trial.latency_ms)
        words = f"up to {forecast.upper:.4f} is forecast; at its latency it needs more than {bar:.4f}"
        inputs = _inputs(trial, rung, forecast, bar)
        if forecast.upper > bar:
            return keep_on(RULE, words, epoch=rung, inputs=inputs)
        return Decision(action="pause", rule=RULE, reason=words, epoch=rung, inputs=inputs)

    def promotions(self, situation: Situation) -> Sequence[tuple[int, Decision]]:
        """Paused trials whose bound clears the staircase again, the clearest first."""
        waiting = [(t, situation.ladder.reached(t)) for t in situation.tried if t.state == "paused"]
        rungs = {rung for _, rung in waiting if rung is not None}
        forecasters = {rung: Forecaster.of(situation.tried, rung) for rung in rungs}
        bars = _Bars(situation.tried, situation.quality_floor)
        found: list[tuple[float, int, Decision]] = []
        for trial, rung in waiting:
            forecaster = forecasters[rung] if rung is not None else None
            if rung is None or forecaster is None or trial.latency_ms is None or not forecaster.knows(trial):
                continue
            forecast = forecaster.forecast(trial)
            bar = bars.at(trial.latency_ms)
            if forecast.upper - bar > MARGIN * forecast.sd:
                words = f"up to {forecast.upper:.4f} is forecast now; at its latency it needs {bar:.4f}"
                inputs = _inputs(trial, rung, forecast, bar)
                decision = Decision(action="promote", rule=RULE, reason=words, epoch=rung, inputs=inputs)
                found.append((bar - forecast.upper, trial.number, decision))
        return [(number, decision) for _, number, decision in sorted(found, key=lambda f: f[:2])]


class _Bars:
    """What a final quality must exceed to be worth anything: the staircase, sorted once, and the floor."""

    def __init__(self, tried: Sequence[Tried], floor: float) -> None:
        done = [t for t in tried if t.state == "complete" and t.quality is not None]
        points = [(t.quality or 0.0, t.latency_ms) for t in done if t.latency_ms is not None]
        steps = [points[i] for i in front(points)]
        self._latencies, self._qualities = [ms for _, ms in steps], [floor, *(q for q, _ in steps)]

    def at(self, latency_ms: float) -> float:
        return max(self._qualities[0], self._qualities[bisect_right(self._latencies, latency_ms)])


def _inputs(trial: Tried, rung: int, forecast: Forecast, bar: float) -> dict[str, Figure]:
    return {
        "quality": trial.best_by(rung),
        "latency_ms": trial.latency_ms,
        "forecast_mean": forecast.mean,
        "forecast_sd": forecast.sd,
        "forecast_upper": forecast.upper,
        "level": LEVEL,
        "pace_offset": forecast.offset,
        "num_completed": forecast.num_completed,
        "staircase": bar,
    }
