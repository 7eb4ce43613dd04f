"""Importances find what decides a quality, also of conditional parameters, and nothing in noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from kdsearch.core.records import TrialConfig
from kdsearch.search import importance
from kdsearch.search.importance import importances


def drawn(count: int) -> list[TrialConfig]:
    """Configurations of two students and two schemes, at random."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        student, scheme = rng.choice(["textcnn", "bag"]), rng.choice(["none", "offline"])
        own = {"filters": int(rng.choice([64, 128, 256])), "kernel_sizes": (2, int(rng.integers(3, 5)))}
        found.append(
            TrialConfig(
                student=str(student),
                student_params=own if student == "textcnn" else {},
                scheme=str(scheme),
                scheme_params={"temperature": float(rng.uniform(1, 16))} if scheme == "offline" else {},
                learning_rate=float(10 ** rng.uniform(-4, -2)),
                batch_size=32,
                epochs=2,
                seed=17,
            )
        )
    return found


def rate(config: TrialConfig) -> float:
    return math.log10(config.learning_rate) / 2 + 1.5  # from -0.5 to 0.5


@pytest.mark.parametrize(
    ("quality", "first"),
    [
        (lambda c: 0.3 * (c.student == "textcnn") + 0.02 * rate(c), "student"),
        (lambda c: 0.05 * (c.student == "textcnn") + 0.3 * rate(c), "learning_rate"),
        (lambda c: float(c.student_params.get("filters", 0)) / 100, "textcnn.filters"),
        (lambda c: float(c.scheme_params.get("temperature", 8.0)) / 16, "offline.temperature"),
    ],
)
def test_what_decides_comes_first(quality: Callable[[TrialConfig], float], first: str) -> None:
    configs = drawn(200)
    found = importances(configs, [quality(config) for config in configs])
    assert found[first] > 0.4
    assert sum(found.values()) == pytest.approx(1)
    assert "batch_size" not in found  # it never varies


def test_both_of_two_causes_are_found_in_few_trials() -> None:
    configs = drawn(40)
    found = importances(configs, [0.3 * (c.scheme == "offline") + 0.3 * rate(c) for c in configs])
    assert {name for name, share in found.items() if share > 0.2} == {"scheme", "learning_rate"}


def test_where_nothing_can_be_said_nothing_is() -> None:
    configs = drawn(30)
    assert importances(configs[: importance.FEWEST - 1], [0.1] * (importance.FEWEST - 1)) == {}
    assert importances(configs, [0.5] * 30) == {}
    assert importances([configs[0]] * 30, list(np.arange(30.0))) == {}


def test_many_trials_are_thinned_out_and_the_answer_is_the_same_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importance, "MOST", 60)
    configs = drawn(300)
    values = [rate(config) for config in configs]
    found = importances(configs, values)
    assert found == importances(configs, values)
    assert found["learning_rate"] > 0.8
