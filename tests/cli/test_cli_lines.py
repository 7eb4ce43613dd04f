"""What a run says on a pipe of trials that were paused, and of a study that has nothing to choose from."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from kdsearch.cli import live, within
from kdsearch.core.errors import NothingFeasibleError
from kdsearch.core.records import FINISHED


@dataclass
class Row:
    """As much of a trial as a line needs."""

    number: int
    state: str
    epochs_run: int | None = 1
    feasible: bool = True
    quality: float | None = None
    latency_ms: float | None = None
    student: str = "bag"
    scheme: str = "offline"
    failure: None = None


@dataclass
class Study:
    """As much of a study."""

    budget_trials: int = 4
    teacher: None = None
    quality_name: str = "accuracy"
    latency_name: str = "p90_ms"


@dataclass
class Seen:
    """As much of a look."""

    rows: list[Row]
    study: Study = field(default_factory=Study)
    preparing: str = ""
    again: str = ""

    @property
    def front(self) -> Any:
        return SimpleNamespace(rows=self.rows, members=[])

    @property
    def finished(self) -> list[Row]:
        return [row for row in self.rows if row.state in FINISHED]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `live.Lines` said."""
    said: list[str] = []
    monkeypatch.setattr(live.output, "say", said.append)
    return said


def test_each_pause_is_told_once_and_again_after_the_trial_was_called_back(lines: list[str]) -> None:
    display = live.Lines()
    for rows in (
        [Row(0, "running")],
        [Row(0, "paused")],
        [Row(0, "paused"), Row(1, "running")],
        [Row(0, "running"), Row(1, "paused")],
        [Row(0, "paused", epochs_run=3), Row(1, "paused")],
    ):
        display.update(Seen(rows))
    assert lines == [
        "trial 0 paused after epoch 1  bag/offline",
        "trial 1 paused after epoch 1  bag/offline",
        "trial 0 paused after epoch 3  bag/offline",
    ]


def test_what_was_paused_and_stopped_says_how_far_it_came(lines: list[str]) -> None:
    display = live.Lines()
    display.update(Seen([Row(0, "paused", epochs_run=2)]))
    display.update(Seen([Row(0, "stopped", epochs_run=2), Row(1, "stopped", epochs_run=None)]))
    assert lines[1:] == [
        "[1/4] trial 0 stopped  bag/offline  after epoch 2",
        "[2/4] trial 1 stopped  bag/offline  after epoch 0",
    ]


def test_what_does_not_change_is_said_once(lines: list[str]) -> None:
    display = live.Lines()
    for text in ("away", "away", "back", "away"):
        display.say(text)
    assert lines == ["away", "back", "away"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "no complete trial yet"),
        ([Row(0, "failed"), Row(1, "stopped")], "no complete trial yet"),
        ([Row(0, "rejected"), Row(1, "failed")], "none of its 2 trials .* constraints \\(broken by 1\\)"),
        ([Row(0, "complete", feasible=False)], "none of its 1 trials .* constraints \\(broken by 1\\)"),
    ],
    ids=["none", "broken", "rejected", "infeasible"],
)
def test_constraints_are_blamed_only_where_a_trial_broke_them(rows: list[Any], why: str) -> None:
    with pytest.raises(NothingFeasibleError, match=why):
        within.best_of(rows, within.Within(), study="s")
