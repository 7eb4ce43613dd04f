"""When a front has stopped growing."""

from __future__ import annotations

import pytest

from kdsearch.core.records import TrialConfig, TrialState, Tried
from kdsearch.core.spec import PlateauSpec
from kdsearch.search.plateau import is_flat

CONFIG = TrialConfig(
    student="bag",
    student_params={},
    scheme="none",
    scheme_params={},
    learning_rate=1e-3,
    batch_size=32,
    epochs=6,
    seed=17,
)
SPEC = PlateauSpec(trials=3, gain=0.01)


def trial(
    number: int, quality: float, latency_ms: float | None = 1.0, state: TrialState = "complete"
) -> Tried:
    final = quality if state == "complete" else None
    return Tried(
        number=number,
        config=CONFIG,
        state=state,
        latency_ms=latency_ms,
        qualities={6: quality},
        quality=final,
    )


GOOD = [trial(0, 0.8), trial(1, 0.9, 4.0)]


def test_trials_that_add_nothing_make_it_flat() -> None:
    assert is_flat([*GOOD, *(trial(n, 0.7) for n in range(2, 5))], SPEC, 0.5)
    assert not is_flat([*GOOD, *(trial(n, 0.7) for n in range(2, 4))], SPEC, 0.5), "too few yet"


@pytest.mark.parametrize("found", [(0.9, 1.0), (0.8, 0.5), (0.95, 4.0)])
def test_one_that_adds_enough_keeps_it_going(found: tuple[float, float]) -> None:
    assert not is_flat([*GOOD, trial(2, 0.7), trial(3, *found), trial(4, 0.7)], SPEC, 0.5)


def test_small_steps_count_together() -> None:
    steps = [trial(2, 0.802), trial(3, 0.804), trial(4, 0.806)]
    assert not is_flat([*GOOD, *steps], SPEC, 0.5)
    assert is_flat([*GOOD, *steps], PlateauSpec(trials=3, gain=0.1), 0.5)


def test_without_a_least_gain_only_nothing_at_all_is_flat() -> None:
    spec = PlateauSpec(trials=3, gain=0.0)
    assert is_flat([*GOOD, *(trial(n, 0.7) for n in range(2, 5))], spec, 0.5)
    assert not is_flat([*GOOD, trial(2, 0.8001), trial(3, 0.7), trial(4, 0.7)], spec, 0.5)


def test_what_failed_or_was_rejected_says_nothing_of_the_front() -> None:
    for state in ("failed", "rejected", "running", "waiting"):
        assert not is_flat([*GOOD, *(trial(n, 0.7, 1.0, state) for n in range(2, 9))], SPEC, 0.5)  # type: ignore[arg-type]
    for state in ("paused", "stopped"):
        assert is_flat([*GOOD, *(trial(n, 0.7, 1.0, state) for n in range(2, 5))], SPEC, 0.5)  # type: ignore[arg-type]


def test_without_anything_above_the_floor_there_is_no_front_to_be_flat() -> None:
    assert not is_flat([trial(n, 0.4) for n in range(9)], SPEC, 0.5)
    assert not is_flat([trial(n, 0.9, None) for n in range(9)], SPEC, 0.5)


def test_doubling_every_latency_changes_nothing() -> None:
    points = [(0.8, 1.0), (0.9, 4.0), (0.81, 0.9), (0.7, 3.0), (0.905, 4.0)]
    for gain in (0.001, 0.01, 0.05, 0.2):
        spec = PlateauSpec(trials=3, gain=gain)
        flat = [
            is_flat([trial(n, q, ms * scale) for n, (q, ms) in enumerate(points)], spec, 0.5)
            for scale in (1.0, 2.0, 100.0)
        ]
        assert len(set(flat)) == 1
    assert is_flat(
        [trial(n, q, ms) for n, (q, ms) in enumerate(points)], PlateauSpec(trials=3, gain=0.2), 0.5
    )
