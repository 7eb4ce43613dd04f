"""What `kdsearch run` shows while it runs: a live table on a terminal, a line per trial on a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kdsearch.cli import answers, output, progress
from kdsearch.cli.within import Within
from kdsearch.core.records import FINISHED

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from sqlalchemy import Engine

    from kdsearch.store.reads import StudyRow, TrialRow
    from kdsearch.store.rows import RepeatRow


@dataclass(frozen=True)
class Running:
    """A trial somebody works on now."""

    row: TrialRow
    epoch: int
    """The last finished one; 0 before the first."""
    quality: float | None


@dataclass(frozen=True)
class Look:
    """One look at a study."""

    front: answers.Front
    running: Sequence[Running]
    preparing: str
    """What the preparation does now; empty when it is over."""
    again: str = ""
    """How far the finalists are, or that the study is paused; else empty."""

    @property
    def study(self) -> StudyRow:
        """The study itself."""
        return self.front.study

    @property
    def finished(self) -> list[TrialRow]:
        """Trials that ended, whichever way."""
        return [row for row in self.front.rows if row.state in FINISHED]


def look(engine: Engine, name: str) -> Look:
    """Read a study, its trials and what runs."""
    from kdsearch.store import reads

    study = reads.study(engine, name)
    front = answers.Front.read(engine, study, Within())
    running = []
    for row in front.rows:
        if row.state == "running":
            epochs = reads.epochs(engine, study.id, row.number)
            scores = epochs[-1].scores if epochs else None
            running.append(
                Running(row, epochs[-1].epoch if epochs else 0, scores.quality if scores else None)
            )
    preparation = reads.preparation(engine, study.id)
    said = {"waiting": "waiting for a worker", "running": preparation.progress or "the teacher"}
    preparing = said.get(preparation.state, "")
    again = _again(reads.repeats(engine, study.id))
    if study.state == "paused":
        again = f"paused; what runs goes on to its end. Let it go on: kdsearch study resume {name}"
    return Look(front, running, preparing, again)


def _again(repeats: Sequence[RepeatRow]) -> str:
    ended = sum(row.state in FINISHED for row in repeats)
    return f"{ended} of {len(repeats)} further seeds of finalists are trained" if repeats else ""


@dataclass
class Pace:
    """How fast trials end in this run, and so how long it still takes."""

    clock: Callable[[], float] = time.monotonic
    _first: tuple[float, int] | None = field(default=None, init=False)

    def seconds_left(self, look: Look) -> float | None:
        """Until the budget of trials or of hours is spent; None while nothing can be said."""
        now, done = self.clock(), len(look.finished)
        if self._first is None:
            self._first = (now, done)
        since, before = self._first
        study = look.study
        if done >= study.budget_trials:
            return None
        estimates = []
        if done > before:
            estimates.append((study.budget_trials - done) * (now - since) / (done - before))
        if study.budget_hours is not None:
            estimates.append(study.budget_hours * 3600 - study.active_seconds)
        return max(0.0, min(estimates)) if estimates else None


def duration(seconds: float | None) -> str:
    """About how long, in the unit that a person would use."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"


class Display(Protocol):
    """Shows looks at a study as they are taken."""

    def update(self, look: Look) -> None:
        """Show what is new."""
        ...

    def say(self, text: str) -> None:
        """Show a line beside it."""
        ...


class Silent:
    """For -q: nothing but errors."""

    def update(self, look: Look) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class Lines:
    """For a pipe: a line per finished trial, and one when the preparation gets on."""

    def __init__(self) -> None:
        self._told: set[int] | None = None
        self._preparing = ""
        self._teacher = ""
        self._again = ""
        self._paused: set[int] = set()
        self._said = ""
        self._seldom = progress.Seldom(self.say)

    def update(self, look: Look) -> None:
        """A line for each trial that ended, or was paused, since the last look."""
        self._tell_preparation(look)
        ended = sorted(look.finished, key=lambda row: row.number)
        if self._told is None:
            # what a former run did is counted, not repeated
            self._told = {row.number for row in ended}
            if ended:
                self.say(f"going on: {len(ended)} of {look.study.budget_trials} trials are done")
        for row in ended:
            if row.number not in self._told:
                self._told.add(row.number)
                self.say(self._line(look, row))
        self._tell_paused(look)
        if look.again and look.again != self._again:
            self.say(look.again)
        self._again = look.again

    def _tell_preparation(self, look: Look) -> None:
        if look.preparing and look.preparing != self._preparing:
            self._seldom(f"preparing: {look.preparing}")
        self._preparing = look.preparing
        if look.study.teacher is not None and not self._teacher:
            self._teacher = answers.teacher_text(look.study)
            self.say(f"teacher: {self._teacher}")
            if weak := answers.weak_teacher(look.study):
                self.say(weak)

    def _tell_paused(self, look: Look) -> None:
        paused = {row.number: row for row in look.front.rows if row.state == "paused"}
        for number in sorted(paused.keys() - self._paused):
            row = paused[number]
            self.say(f"trial {number} paused after epoch {row.epochs_run}  {row.student}/{row.scheme}")
        self._paused = set(paused)

    def _line(self, look: Look, row: TrialRow) -> str:
        parts = [f"[{len(self._told or ())}/{look.study.budget_trials}] trial {row.number} {row.state}"]
        parts.append(f"{row.student}/{row.scheme}")
        if row.quality is not None:
            parts.append(f"{look.study.quality_name} {row.quality:.4f}")
        if row.latency_ms is not None:
            parts.append(f"{look.study.latency_name.removesuffix('_ms')} {row.latency_ms:.3f} ms")
        if row.state == "stopped":
            parts.append(f"after epoch {row.epochs_run or 0}")
        if row.failure is not None:
            parts.append(row.failure.message)
        if row.number in {member.number for member in look.front.members}:
            parts.append("on the front")
        return "  ".join(parts)

    def say(self, text: str) -> None:
        """A line on stderr; what is said at every look, such as that the database is away, once."""
        if text != self._said:
            output.say(text)
        self._said = text


class Screen:
    """For a terminal: one table that changes in place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pace = Pace()
        self._note = ""
        self._last: Look | None = None

    def update(self, look: Look) -> None:
        """Draw the table anew."""
        self._last = look
        self._live.update(self._drawn(look), refresh=True)

    def say(self, text: str) -> None:
        """A line below the table that stays until the next one."""
        self._note = text
        if self._last is not None:
            self.update(self._last)

    def _drawn(self, look: Look) -> Group:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [self._head(look)]
        if look.preparing:
            parts.append(progress.bar(f"preparing: {look.preparing}"))
        if look.running:
            parts += ["", _running_table(look)]
        if look.again:
            parts.append(progress.bar(look.again))
        if look.front.members:
            members = look.front.members
            table = answers.trials_table(look.study, members, params=False)
            parts += ["", Text("front so far", style="bold"), table]
        if weak := answers.weak_teacher(look.study):
            parts += ["", Text(weak, style="yellow")]
        if self._note:
            parts += ["", Text(self._note, style="yellow")]
        return Group(*parts)

    def _head(self, look: Look) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        study, done = look.study, len(look.finished)
        head = Table.grid(padding=(0, 2))
        states = ("failed", "rejected", "paused", "stopped")
        counts = "  ".join(f"{study.counts[state]} {state}" for state in states if study.counts.get(state))
        head.add_row(
            Text(study.name, style="bold"),
            ProgressBar(total=study.budget_trials, completed=done, width=24),
            f"{done}/{study.budget_trials} trials",
            Text(counts),
            Text(duration(self._pace.seconds_left(look)), style="dim"),
        )
        return head


def _running_table(look: Look) -> RenderableType:
    training = look.study.spec.get("training", {})
    epochs = training.get("epochs", "?")
    quality = look.study.quality_name
    figures = ("running", "epoch", quality)
    made = output.table("running", "student", "scheme", "epoch", quality, right=figures)
    for running in look.running:
        made.add_row(
            str(running.row.number),
            running.row.student,
            running.row.scheme,
            f"{running.epoch}/{epochs}",
            output.figure(running.quality, 4),
        )
    return made


@contextmanager
def display(*, quiet: bool) -> Iterator[Display]:
    """The display that fits stderr."""
    console = output.stderr()
    if quiet:
        yield Silent()
    elif not console.is_terminal:
        yield Lines()
    else:
        from rich.console import Console
        from rich.live import Live

        # the table goes when the run ends: the front is printed on stdout then
        screen = Console(stderr=True, highlight=False, emoji=False)
        with Live(console=screen, auto_refresh=False, transient=True) as live:
            yield Screen(live)
