"""Health cards appear when something is wrong, and only then. No database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from dashboard import health
from dashboard.queries.studies import Snapshot
from kdsearch.store.columns import Pulse
from kdsearch.store.reads import WorkerRow

Make = Callable[..., Snapshot]
GOOD = {"quality": 0.9, "ms": 1.0}
RANGES = {
    "students": [{"type": "textcnn", "filters": [32, 64, 128], "dropout": {"min": 0.0, "max": 0.5}}],
    "schemes": ["none", {"type": "offline", "temperature": {"min": 1, "max": 16, "log": True}}],
    "training": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}, "epochs": 3},
}
INSIDE = {"textcnn.filters": 64, "textcnn.dropout": 0.25, "offline.temperature": 4.0, "learning_rate": 1e-3}


def pulse(snapshot: Snapshot, state: str = "open", alive: int = 1) -> Pulse:
    return Pulse(
        study_id=1, state=state, error=None, budget_trials=10, counts={}, marks="", num_standings=0,  # type: ignore[arg-type]
        num_alive=alive, now=snapshot.study.created_at,
    )  # fmt: skip


def titles(
    snapshot: Snapshot, workers: Sequence[WorkerRow] = (), best: Any = None, **of_pulse: Any
) -> list[str]:
    found = health.cards(snapshot, pulse(snapshot, **of_pulse), workers=workers, best=best)
    return [card.title for card in found]


@pytest.mark.parametrize("rows", [(), (GOOD,), (GOOD,) * 30], ids=["none", "one", "thirty"])
def test_nothing_wrong_is_no_card(make_snapshot: Make, rows: Sequence[Any]) -> None:
    assert titles(make_snapshot(*rows, spec=RANGES), best=INSIDE) == []


def test_nothing_feasible(make_snapshot: Make) -> None:
    over = {**GOOD, "feasible": False}
    assert titles(make_snapshot(over, over, {"state": "rejected"})) == ["Nothing feasible"]
    assert titles(make_snapshot(over, over, GOOD)) == []


def test_many_failures(make_snapshot: Make) -> None:
    failed = {"state": "failed"}
    assert titles(make_snapshot(*[failed] * 3, *[GOOD] * 10)) == ["Many failures"]
    assert titles(make_snapshot(*[failed] * 3, *[GOOD] * 40)) == []
    assert titles(make_snapshot(*[failed] * 2)) == []


def test_noisy_latency(make_snapshot: Make) -> None:
    noisy = {**GOOD, "noisy": True}
    assert titles(make_snapshot(noisy, noisy, *[GOOD] * 5)) == ["Noisy latency"]
    assert titles(make_snapshot(noisy, *[GOOD] * 5)) == []


def test_silent_workers(make_snapshot: Make) -> None:
    snapshot = make_snapshot(GOOD)
    now = snapshot.study.created_at
    about: dict[str, Any] = dict.fromkeys(WorkerRow.__dataclass_fields__)
    about |= {"id": "w", "host": "*here*", "state": "active", "started_at": now}
    gone = WorkerRow(**{**about, "seen_at": now - timedelta(minutes=5)})
    there = WorkerRow(**{**about, "seen_at": now - timedelta(seconds=5)})
    assert titles(snapshot, [gone, there]) == ["Silent workers"]
    assert titles(snapshot, [there]) == []
    assert titles(snapshot, [gone], state="done") == []
    card = health.silent([gone], pulse(snapshot, alive=0))
    assert card is not None
    assert r"\*here\*" in card.advice
    assert "none is alive" in card.advice


def test_searching_worse_than_the_recipe(make_snapshot: Make) -> None:
    recipe = {"quality": 0.95, "ms": 1.0, "origin": "preset:literature/tang"}
    assert titles(make_snapshot(recipe, *[GOOD] * 10)) == ["Searching is worse than the recipe"]
    assert titles(make_snapshot(recipe, *[GOOD] * 9)) == []
    assert titles(make_snapshot({**recipe, "quality": 0.8}, *[GOOD] * 10)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("textcnn.dropout", 0.499),
        ("textcnn.filters", 128),
        ("offline.temperature", 15.9),
        ("learning_rate", 1.05e-4),
    ],
)
def test_the_best_value_at_a_ranges_edge(make_snapshot: Make, name: str, value: float) -> None:
    snapshot = make_snapshot(*[GOOD] * 10, spec=RANGES)
    assert titles(snapshot, best={**INSIDE, name: value}) == ["Best value at a range's edge"]
    assert titles(make_snapshot(*[GOOD] * 9, spec=RANGES), best={**INSIDE, name: value}) == []
