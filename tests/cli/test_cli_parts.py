"""Parts of the command line that need no process: ceilings, placements, pace, redaction, reports."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.cli import errors, live, within
from kdsearch.cli.options import Options
from kdsearch.cli.run import placements, resume_command
from kdsearch.cli.worker import StopSignals, checked_device, stop_question
from kdsearch.core.errors import NotFoundError, NothingFeasibleError, UsageError
from kdsearch.core.pareto import front
from kdsearch.core.records import Standing


@dataclass
class Row:
    """As much of a trial as choosing needs."""

    number: int
    quality: float | None
    latency_ms: float | None
    size_mb: float | None = 1.0
    state: str = "complete"
    feasible: bool = True
    student: str = "bag"


def test_ceilings_are_read() -> None:
    expected = within.Within(latency_ms=5.0, size_mb=2.0)
    assert within.parse(["latency_ms=5", "size_mb=2"]) == expected
    assert within.parse(["latency_ms=5, size_mb=2"]) == expected
    assert within.parse(None) == within.Within()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("latency=5", "latency_ms=5"),
        ("size=5", "size_mb=5"),
        ("latency_ms", "latency_ms=5"),
        ("latency_ms=fast", "latency_ms=5"),
        ("latency_ms=-1", "latency_ms=5"),
        ("latency_ms=nan", "latency_ms=5"),
        ("", "latency_ms=5"),
    ],
)
def test_a_wrong_ceiling_names_a_right_one(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        within.parse([text])
    assert hint in caught.value.hint


def test_best_filters_first_and_breaks_ties_by_latency() -> None:
    rows = [Row(0, 0.99, 9.0), Row(1, 0.9, 3.0), Row(2, 0.9, 2.0), Row(3, 0.8, 1.0)]
    assert within.best_of(rows, within.Within(latency_ms=5.0), study="s").number == 2
    assert within.best_of(rows, within.Within(), study="s").number == 0


def standing(number: int, quality: float, *seeds: int) -> Standing:
    return Standing(number=number, quality=quality, low=0.0, high=1.0, on_front=0.5, seeds=seeds)


def test_means_of_finalists_decide_alone_and_one_trial_that_was_trained_again_does_not() -> None:
    rows = [Row(0, 0.99, 9.0), Row(1, 0.9, 3.0), Row(2, 0.8, 2.0)]
    finalists = [standing(1, 0.85, 1, 2), standing(2, 0.86, 1, 2)]
    assert within.best_of(rows, within.Within(), study="s", standings=finalists).number == 2
    one_again = [standing(0, 0.99, 1), standing(1, 0.91, 1, 2), standing(2, 0.8, 1)]
    assert within.best_of(rows, within.Within(), study="s", standings=one_again).number == 0


def test_best_takes_only_what_is_complete_and_feasible() -> None:
    rows = [
        Row(0, 0.99, 1.0, feasible=False),
        Row(1, 0.98, 1.0, state="running"),
        Row(2, None, 1.0),
        Row(3, 0.5, 1.0),
    ]
    assert within.best_of(rows, within.Within(), study="s").number == 3


def test_nothing_within_names_the_fastest() -> None:
    rows = [Row(0, 0.99, 9.0), Row(7, 0.7, 3.25)]
    with pytest.raises(NothingFeasibleError, match=r"fastest is trial 7 \(bag\) with 3.25 ms"):
        within.best_of(rows, within.Within(latency_ms=1.0), study="s")
    with pytest.raises(NothingFeasibleError, match="no complete trial"):
        within.best_of([], within.Within(), study="s")


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 10)), min_size=1, max_size=30),
    st.floats(0.01, 10),
)
def test_the_best_within_a_ceiling_is_on_the_front_within_it(points, ceiling) -> None:
    rows = [Row(i, quality, latency) for i, (quality, latency) in enumerate(points)]
    inside = [row for row in rows if row.latency_ms <= ceiling]
    if not inside:
        with pytest.raises(NothingFeasibleError):
            within.best_of(rows, within.Within(latency_ms=ceiling), study="s")
        return
    best = within.best_of(rows, within.Within(latency_ms=ceiling), study="s")
    members = [inside[i] for i in front([(row.quality, row.latency_ms) for row in inside])]
    assert best in members


def test_placements() -> None:
    assert placements(None, "auto", None) == ["auto"]
    assert placements(3, "cpu", None) == ["cpu"] * 3
    assert placements(None, "auto", "0,2") == ["cuda:0", "cuda:2"]
    assert placements(2, "cuda", None) == ["cuda:0"] * 2


@pytest.mark.parametrize(
    ("workers", "device", "gpus"),
    [(2, "auto", "0"), (None, "cpu", "0"), (None, "auto", "0;1"), (None, "gpu", None), (1, "cuda:x", None)],
)
def test_placements_that_cannot_be(workers, device, gpus) -> None:
    with pytest.raises(UsageError):
        placements(workers, device, gpus)


def test_devices() -> None:
    assert checked_device("cuda:3") == "cuda:3"
    with pytest.raises(UsageError, match="tpu"):
        checked_device("tpu")


def test_the_resume_command_repeats_the_run_and_holds_no_password() -> None:
    options = Options(storage="postgresql://me:secret@host/db")
    command = resume_command(options, Path("my study.yaml"), workers=2, device="cpu", gpus=None, threads=1)
    assert command == "kdsearch run 'my study.yaml' --workers 2 --device cpu"


def test_a_worker_stops_when_its_parent_is_gone() -> None:
    signals = StopSignals()
    assert not stop_question(signals, None)()
    assert not stop_question(signals, os.getppid())()
    assert stop_question(signals, os.getppid() + 1)()
    signals.received = signal.SIGINT
    assert stop_question(signals, None)()
    assert signals.exit_code == 130


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:s3cret@host/db",
        "postgresql+psycopg2://me:s3cret@host:5432/db?x=1",
        "postgresql://:s3cret@/db?host=/tmp/x",
        "connection failed: password=s3cret host=x",
        "s3://key:s3cret@bucket/path",
    ],
)
def test_passwords_are_never_shown(text: str) -> None:
    assert "s3cret" not in errors.redacted(f"it was {text} that failed")
    assert "that failed" in errors.redacted(f"it was {text} that failed")


def test_options_before_the_command_are_kept_and_those_after_it_win() -> None:
    outer = Options(storage="a", form="json")
    assert Options(storage="b").over(outer) == Options(storage="b", form="json")
    assert Options().over(outer) == outer
    assert Options(form="quiet").over(None) == Options(form="quiet")


def test_reports_of_every_kind_of_error() -> None:
    assert errors.reported(NotFoundError("no study", hint="kdsearch study list")).exit_code == 3
    unexpected = errors.reported(ZeroDivisionError("division by zero\nsecond line"))
    assert unexpected.exit_code == 1
    assert unexpected.message == "unexpected ZeroDivisionError: division by zero"
    assert "--debug" in unexpected.hint


@dataclass
class Study:
    """As much of a study as telling the time needs."""

    budget_trials: int = 10
    budget_hours: float | None = None
    active_seconds: float = 0.0


@dataclass
class Seen:
    """As much of a look."""

    study: Study
    finished: list[int] = field(default_factory=list)


def test_pace_counts_only_what_this_run_did() -> None:
    now = [100.0]
    pace = live.Pace(clock=lambda: now[0])
    assert pace.seconds_left(Seen(Study(), [0] * 4)) is None  # a former run did these
    now[0] = 120.0
    assert pace.seconds_left(Seen(Study(), [0] * 6)) == pytest.approx(40.0)
    assert pace.seconds_left(Seen(Study(), [0] * Study().budget_trials)) is None  # nothing is left
    hours = Study(budget_hours=0.01, active_seconds=30.0)
    assert pace.seconds_left(Seen(hours, [0] * 6)) == pytest.approx(6.0)


def test_durations() -> None:
    assert live.duration(None) == ""
    assert live.duration(0.2) == "about 1 s left"
    assert live.duration(600) == "about 10 min left"
    assert live.duration(7200) == "about 2.0 h left"
