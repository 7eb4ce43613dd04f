"""What every pruner keeps to, whatever its rule."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.core.records import TrialConfig, TrialState, Tried
from kdsearch.core.spec import RungsSpec
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.pruners.base import Ladder, Situation

LADDER = Ladder(rungs=(1, 3), epochs=6, factor=3)


def config(student: str = "bag", scheme: str = "none", rate: float = 1e-3) -> TrialConfig:
    return TrialConfig(
        student=student,
        student_params={},
        scheme=scheme,
        scheme_params={},
        learning_rate=rate,
        batch_size=32,
        epochs=6,
        seed=17,
    )


def trial(
    number: int,
    qualities: Mapping[int, float],
    latency_ms: float | None = 1.0,
    state: TrialState = "running",
    **of_config: str,
) -> Tried:
    final = max(qualities.values(), default=None) if state == "complete" else None
    return Tried(
        number=number,
        config=config(**of_config),  # type: ignore[arg-type]
        state=state,
        latency_ms=latency_ms,
        qualities=dict(qualities),
        quality=final,
    )


def situation(*tried: Tried, floor: float = 0.0) -> Situation:
    return Situation(tried=tried, ladder=LADDER, quality_floor=floor)


STATES: tuple[TrialState, ...] = ("waiting", "running", "paused", "complete", "stopped", "rejected", "failed")
SEEDS = st.integers(0, 2**32 - 1)


def some(seed: int, most: int = 30) -> list[Tried]:
    """Anything that a study may hold: ties, unknown latencies, unscored first epochs, any state."""
    draw = random.Random(seed)
    found = []
    for number in range(draw.randint(5, most)):
        state = draw.choices(STATES, weights=(1, 2, 2, 8, 1, 1, 1))[0]
        epochs = 6 if state == "complete" else draw.randint(0, 5)
        curve = {e: draw.choice((0.0, 0.5, draw.random())) for e in range(draw.choice((1, 1, 3)), epochs + 1)}
        latency = draw.choice((None, 1.0, 2.0, 10 ** draw.uniform(-3, 3)))
        found.append(trial(number, curve, latency, state, scheme=draw.choice(("none", "hint"))))
    return found


@pytest.mark.parametrize("name", sorted(PRUNERS))
class TestEveryPruner:
    def test_a_lone_trial_goes_on(self, name: str) -> None:
        own = trial(0, {1: 0.4})
        assert PRUNERS[name]().judge(own, situation(own, floor=0.5)).action == "continue"

    def test_without_a_scored_epoch_a_trial_goes_on(self, name: str) -> None:
        best = [trial(n, dict.fromkeys(range(1, 7), 0.9), state="complete") for n in range(20)]
        own = trial(20, {})
        assert PRUNERS[name]().judge(own, situation(*best, own)).action == "continue"

    def test_before_the_first_rung_a_trial_goes_on(self, name: str) -> None:
        ladder = Ladder(rungs=(2,), epochs=6, factor=3)
        best = [trial(n, dict.fromkeys(range(1, 7), 0.9), state="complete") for n in range(20)]
        own = trial(20, {1: 0.0})
        found = PRUNERS[name]().judge(own, Situation(tried=(*best, own), ladder=ladder, quality_floor=0.0))
        assert found.action == "continue"

    @settings(max_examples=25, deadline=None)
    @given(seed=SEEDS, floor=st.floats(0, 1))
    def test_any_situation_is_answered_the_same_twice_and_in_json(
        self, name: str, seed: int, floor: float
    ) -> None:
        tried = some(seed)
        known = situation(*tried, floor=floor)
        pruner = PRUNERS[name]()
        decisions = [pruner.judge(t, known) for t in tried]
        assert decisions == [PRUNERS[name]().judge(t, known) for t in tried]
        promoted = pruner.promotions(known)
        assert promoted == PRUNERS[name]().promotions(known)
        states = {t.number: t.state for t in tried}
        assert {states[number] for number, _ in promoted} <= {"paused"}
        assert len({number for number, _ in promoted}) == len(promoted)
        assert {d.action for d in decisions} <= {"continue", "pause"}
        assert {d.action for _, d in promoted} <= {"promote"}
        for decision in [*decisions, *(d for _, d in promoted)]:
            assert decision.rule == name
            assert len(decision.reason.split()) > 3
            assert json.loads(json.dumps(decision.inputs, allow_nan=False)) == decision.inputs
            assert decision.epoch in (None, *LADDER.rungs)

    @settings(max_examples=25, deadline=None)
    @given(seed=SEEDS, floor=st.floats(0, 0.6))
    def test_the_order_of_the_trials_does_not_matter(self, name: str, seed: int, floor: float) -> None:
        pruner, tried = PRUNERS[name](), some(seed)
        mixed = random.Random(seed).sample(tried, len(tried))
        one, other = situation(*tried, floor=floor), situation(*mixed, floor=floor)
        for t in tried:
            assert pruner.judge(t, one).action == pruner.judge(t, other).action
        assert [n for n, _ in pruner.promotions(one)] == [n for n, _ in pruner.promotions(other)]

    @settings(max_examples=25, deadline=None)
    @given(seed=SEEDS, floor=st.floats(0, 0.6))
    def test_what_is_called_back_is_not_paused_on_the_same_facts(
        self, name: str, seed: int, floor: float
    ) -> None:
        tried = some(seed, most=60)
        pruner, known = PRUNERS[name](), situation(*tried, floor=floor)
        for number, _ in pruner.promotions(known):
            own = replace(tried[number], state="running")
            after = situation(*(own if t.number == number else t for t in tried), floor=floor)
            assert pruner.judge(own, after).action == "continue"

    def test_a_trial_that_is_not_in_the_list_yet_is_judged_all_the_same(self, name: str) -> None:
        others = [trial(n, {1: 0.5 + n / 100}) for n in range(12)]
        own = trial(12, {1: 0.9})
        pruner = PRUNERS[name]()
        assert (
            pruner.judge(own, situation(*others)).action == pruner.judge(own, situation(*others, own)).action
        )


@pytest.mark.parametrize("name", sorted(set(PRUNERS) - {"none"}))
def test_such_situations_do_make_it_pause_and_call_back(name: str) -> None:
    actions: set[str] = set()
    for seed in range(60):
        pruner, tried = PRUNERS[name](), some(seed, most=60)
        actions |= {pruner.judge(t, situation(*tried, floor=0.3)).action for t in tried}
        actions |= {d.action for _, d in pruner.promotions(situation(*tried, floor=0.3))}
    assert actions == {"continue", "pause"} | (
        {"promote"} if name in ("front", "mo_asha_promotion") else set()
    )


def test_the_ladder_stops_below_the_whole_training() -> None:
    assert Ladder.of(RungsSpec(first=1, factor=3), epochs=9).rungs == (1, 3)
    assert Ladder.of(RungsSpec(first=1, factor=3), epochs=10).rungs == (1, 3, 9)
    assert Ladder.of(RungsSpec(first=5, factor=2), epochs=5).rungs == ()


def test_a_rung_is_reached_by_a_scored_epoch() -> None:
    assert LADDER.reached(trial(0, {})) is None
    assert LADDER.reached(trial(0, {2: 0.5})) is None, "nothing was scored by the first rung"
    assert LADDER.reached(trial(0, {1: 0.5, 2: 0.5})) == 1
    assert LADDER.reached(trial(0, {2: 0.5, 3: 0.5})) == 3
