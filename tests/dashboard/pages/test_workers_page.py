"""The Workers page: who runs what, who is silent, leaves or has gone, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import crew
from dashboard.crew import Crew
from kdsearch.store import controls
from kdsearch.store.reads import WorkerRow
from kdsearch.store.reads_live import RunningRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(app: AppTest, kind: str) -> list[str]:
    return [element.value.replace("\\", "") for element in app.get(kind)]


def worker(name: str, *, seen_s: float = 1, state: Any = "active", draining: bool = False) -> WorkerRow:
    return WorkerRow(
        id=name, host="here", pid=7, device="cpu", profile_key=None, state=state, draining=draining,
        started_at=NOW - timedelta(hours=1), seen_at=NOW - timedelta(seconds=seen_s),
    )  # fmt: skip


def running(name: str) -> RunningRow:
    return RunningRow(
        number=3, repeat=2, attempt=1, worker=name, student="bag", scheme="none", epochs_run=1, epochs=4,
        started_at=NOW - timedelta(seconds=30), seconds_left=90.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (worker("w"), "working"),
        (worker("other"), "idle"),
        (worker("w", seen_s=61), "silent"),
        (worker("w", draining=True), "draining"),
        (worker("w", seen_s=9999, state="retired"), "gone"),
        (worker("w", seen_s=61, draining=True), "silent"),
    ],
)
def test_a_worker_is_in_one_state(given: WorkerRow, state: str) -> None:
    assert Crew([given], [running("w")], NOW).state(given) == state


def test_who_needs_looking_at_comes_first() -> None:
    given = [worker("gone", state="retired"), worker("w"), worker("mute", seen_s=100)]
    found = Crew(given, [running("w")], NOW)
    table = crew.rows(found)
    assert [row["worker"] for row in table] == ["mute", "w", "gone"]
    assert table[1]["runs"] == "trial 3, repeat 2: bag, none, epoch 1 of 4"
    assert (table[1]["done"], table[1]["for"], table[1]["left"]) == (0.25, "30 s", "90 s")
    assert crew.counts(found) == {"Working": 1, "Idle": 0, "Draining": 0, "Silent": 1}
    assert "1 worker not seen for over 60 s: mute" in crew.about_silent(found)


def test_the_page_shows_workers_and_tracebacks(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("workers", study="states")
    assert said(app, "error") == []
    assert [metric.value for metric in app.metric] == ["1", "1", "0", "0"]
    table, troubles = (each.value for each in app.dataframe)
    assert list(table["worker"]) == ["w1", "w2"]
    assert list(troubles["trial"]) == [4]
    assert any("<b>loss</b>" in words for words in said(app, "code"))
    assert "kdsearch worker start --study states" in said(app, "code")


def test_a_draining_worker_is_marked(open_page: Callable[..., AppTest], every_state: Any) -> None:
    controls.drain(every_state.engine, "w2")
    (table, _) = (each.value for each in open_page("workers", study="states").dataframe)
    assert dict(zip(table["worker"], table["state"], strict=True)) == {"w1": "working", "w2": "draining"}


def test_without_workers_the_command_is_named(
    open_page: Callable[..., AppTest], tell: Callable[[str], Any]
) -> None:
    tell("fresh")
    app = open_page("workers", study="fresh")
    assert "No worker has worked on this study yet." in said(app, "info")
    assert "kdsearch worker start --study fresh" in said(app, "code")
    assert len(said(app, "success")) == 1
