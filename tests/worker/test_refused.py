"""What is not worth training: too slow, done already, hopeless; and what learning nothing reaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kdsearch.core.records import HardwareProfile, Latency, TrialConfig, Tried
from kdsearch.measure.quality import score
from kdsearch.store.leases import Lease
from kdsearch.worker.floor import trivial_quality
from kdsearch.worker.refused import by_limits, duplicate, hopeless

CONFIG = TrialConfig(
    student="bag",
    student_params={"hidden": 64},
    scheme="none",
    scheme_params={},
    learning_rate=1e-3,
    batch_size=32,
    epochs=3,
    seed=17,
)
PROFILE = HardwareProfile(
    device_model="A CPU", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="own"
)
LATENCY = Latency(
    p50_ms=1.0,
    p90_ms=2.0,
    p99_ms=3.0,
    mean_ms=1.0,
    num_queries=10,
    seconds=1.0,
    size_mb=5.0,
    num_params=1,
    tokenize_p50_ms=0.1,
    noisy=False,
    profile=PROFILE,
)


def tried(number: int, **values: Any) -> Tried:
    plain: dict[str, Any] = {"config": CONFIG, "state": "complete", "latency_ms": 1.0, "qualities": {}}
    return Tried(number=number, **{**plain, **values})


def lease(number: int) -> Lease:
    return Lease(study_id=1, number=number, optuna_trial_id=number, attempt=1, worker_id="one", config=CONFIG)


def test_the_first_limit_that_is_exceeded_is_named() -> None:
    assert by_limits({"latency_ms": -0.5, "size_mb": 0.0}, LATENCY, "p90_ms") is None
    slow = by_limits({"latency_ms": 0.5, "size_mb": -1.0}, LATENCY, "p90_ms")
    assert slow is not None
    assert (slow.action, slow.rule) == ("reject", "latency")
    assert (slow.inputs["latency_ms"], slow.inputs["ceiling"]) == (2.0, 1.5)
    large = by_limits({"latency_ms": -0.5, "size_mb": 1.0}, LATENCY, "p90_ms")
    assert large is not None
    assert (large.rule, large.inputs["ceiling"]) == ("size", 4.0)


def test_of_two_equal_trials_the_later_one_is_a_duplicate() -> None:
    both = [tried(3), tried(7)]
    assert duplicate(lease(3), both) is None
    found = duplicate(lease(7), both)
    assert found is not None
    assert (found.rule, found.inputs) == ("duplicate", {"duplicate_of": 3})


@pytest.mark.parametrize("state", ["failed"])
def test_what_failed_may_be_tried_again(state: Any) -> None:
    assert duplicate(lease(7), [tried(3, state=state), tried(7)]) is None


def test_another_seed_or_rate_is_no_duplicate() -> None:
    for changes in ({"seed": 18}, {"learning_rate": 2e-3}):
        assert duplicate(lease(7), [tried(3, config=replace(CONFIG, **changes))]) is None


@pytest.mark.parametrize(
    ("quality", "latency_ms", "refused"),
    [(1.0, 0.5, True), (1.0, 1.0, False), (1.0, 1.5, False), (0.999, 0.5, False)],
)
def test_only_behind_a_faster_and_perfect_one_there_is_no_hope(
    quality: float, latency_ms: float, refused: bool
) -> None:
    others = [tried(1, quality=quality, latency_ms=latency_ms), tried(2, quality=0.4, latency_ms=0.1)]
    found = hopeless(1.0, 9, others)
    assert (found is not None) is refused
    if found is not None:
        assert (found.rule, found.inputs["faster"]) == ("front", 1)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("accuracy", 0.75),
        ("macro_f1", 3 / 7),
        ("f1:ham", 6 / 7),
        ("f1:spam", 0.0),
        ("recall@precision=0.5:ham", 0.0),
    ],
)
def test_what_always_saying_the_most_frequent_label_reaches(objective: str, expected: float) -> None:
    labels_N = np.array([0, 0, 1, 0, -1, -1, -1])
    found = trivial_quality(labels_N, ("ham", "spam"), objective)
    assert found == pytest.approx(expected)


def test_no_constant_answer_has_a_better_accuracy() -> None:
    labels_N = np.random.default_rng(3).integers(4, size=200)
    labels = tuple("abcd")
    constant = [
        score(np.eye(4, dtype=np.float32)[[c] * 200], labels_N, labels=labels, objective="accuracy").quality
        for c in range(4)
    ]
    assert trivial_quality(labels_N, labels, "accuracy") == max(constant)
