"""`front`: pauses only what cannot reach the front any more, and says what it looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdsearch.core.records import TrialConfig, Tried
from kdsearch.search.pruners.base import Ladder, Situation
from kdsearch.search.pruners.front import FrontPruner

LADDER = Ladder(rungs=(1, 3), epochs=6, factor=3)


def trial(
    number: int,
    early: float,
    *,
    final: float | None = None,
    latency_ms: float | None = 2.0,
    scheme: str = "none",
) -> Tried:
    config = TrialConfig(
        student="bag",
        student_params={},
        scheme=scheme,
        scheme_params={},
        learning_rate=1e-3,
        batch_size=32,
        epochs=6,
        seed=17,
    )
    curve = {1: early} if final is None else {1: early, 3: (early + final) / 2, 6: final}
    return Tried(
        number=number,
        config=config,
        state="running" if final is None else "complete",
        latency_ms=latency_ms,
        qualities=curve,
        quality=final,
    )


def completed(count: int = 20, sd: float = 0.005) -> list[Tried]:
    """The final quality is 0.4 + 0.5 * early; the best is about 0.8, at 1 ms."""
    rng = np.random.default_rng(0)
    return [
        trial(n, float(e), final=0.4 + 0.5 * float(e) + float(rng.normal(0, sd)), latency_ms=1.0 + n / 10)
        for n, e in enumerate(np.linspace(0.8, 0.5, count))
    ]


BLOOMERS = [trial(60 + n, 0.6 + n / 200, final=0.82 + n / 100, latency_ms=2.1 + n / 10) for n in range(8)]
"""Slower than what they are compared with, so that they raise its forecast and not its staircase."""


def situation(*tried: Tried, floor: float = 0.0) -> Situation:
    return Situation(tried=tried, ladder=LADDER, quality_floor=floor)


def judged(own: Tried, *, known: list[Tried] | None = None, floor: float = 0.0) -> str:
    tried = completed() if known is None else known
    return FrontPruner().judge(own, situation(*tried, own, floor=floor)).action


def test_what_stays_under_the_staircase_is_paused_and_what_may_rise_above_goes_on() -> None:
    assert judged(trial(50, 0.55)) == "pause"
    assert judged(trial(50, 0.80)) == "continue"


def test_the_same_curve_goes_on_where_nothing_as_fast_is_as_good() -> None:
    assert judged(trial(50, 0.55, latency_ms=2.0)) == "pause"
    assert judged(trial(50, 0.55, latency_ms=0.5)) == "continue"


def test_the_fastest_goes_on_only_while_it_may_be_worth_something() -> None:
    assert judged(trial(50, 0.55, latency_ms=0.5), floor=0.75) == "pause"


def test_what_is_not_known_is_no_reason_to_stop() -> None:
    assert judged(trial(50, 0.1, latency_ms=None)) == "continue"
    assert judged(trial(50, 0.1, scheme="hint")) == "continue"
    assert judged(trial(50, 0.1), known=completed(9)) == "continue"


def test_the_decision_carries_every_figure() -> None:
    own = trial(50, 0.55)
    decision = FrontPruner().judge(own, situation(*completed(), own))
    inputs = decision.inputs
    assert decision.epoch == 1
    assert inputs["quality"] == 0.55
    assert inputs["latency_ms"] == 2.0
    assert inputs["num_completed"] == 20
    assert inputs["forecast_mean"] == pytest.approx(0.675, abs=0.01)
    best = max(t.quality or 0 for t in completed() if (t.latency_ms or 9) <= 2.0)
    assert inputs["staircase"] == best
    assert f"{best:.4f}" in decision.reason
    assert set(inputs) >= {"forecast_sd", "forecast_upper", "pace_offset", "level"}


def test_the_wider_the_forecast_the_longer_a_trial_goes_on() -> None:
    assert judged(trial(50, 0.70), known=completed(sd=0.003)) == "pause"
    assert judged(trial(50, 0.70), known=completed(sd=0.08)) == "continue"


def test_a_paused_trial_is_called_back_when_its_like_turn_out_better_than_forecast() -> None:
    own = trial(50, 0.62)
    assert judged(own) == "pause"
    waiting = replace(own, state="paused")
    assert FrontPruner().promotions(situation(*completed(), waiting)) == []
    ((number, decision),) = FrontPruner().promotions(situation(*completed(), *BLOOMERS, waiting))
    assert (number, decision.action, decision.epoch) == (50, "promote", 1)
    assert float(decision.inputs["forecast_upper"] or 0) > float(decision.inputs["staircase"] or 0)


def test_of_several_the_clearest_is_called_back_first() -> None:
    waiting = [replace(trial(50 + n, 0.58 + n / 50), state="paused") for n in range(4)]
    found = FrontPruner().promotions(situation(*completed(), *BLOOMERS, *waiting))
    gaps = [float(d.inputs["forecast_upper"] or 0) - float(d.inputs["staircase"] or 0) for _, d in found]
    assert len(found) > 1
    assert gaps == sorted(gaps, reverse=True)


def test_between_a_pause_and_a_recall_lies_a_margin() -> None:
    """What is called back has cleared the staircase by more than what was just not paused."""
    actions = {}
    for early in np.linspace(0.5, 0.8, 301):
        own = trial(50, float(early))
        paused = judged(own) == "pause"
        recalled = bool(FrontPruner().promotions(situation(*completed(), replace(own, state="paused"))))
        actions[float(early)] = (paused, recalled)
    found = list(actions.values())
    assert (True, True) not in found
    assert {(True, False), (False, False), (False, True)} == set(found)
