"""Progress: a share becomes a bar; lines come seldom where there is no terminal; -q is silent."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress_bar import ProgressBar

from kdsearch.cli import progress
from kdsearch.cli.options import Options


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("teacher labels train: 4096 of 8192 texts", 0.5),
        ("fine-tuning the teacher: 75% of the rows seen", 0.75),
        ("fine-tuning the teacher: 2 of 4 anchors, accuracy 0.9312", 0.5),
        ("reading texts", None),
        ("0 of 0 texts", None),
        ("130 % done", 1.0),
    ],
)
def test_the_share_that_a_sentence_tells(text: str, share: float | None) -> None:
    assert progress.share_of(text) == share
    console = Console(file=io.StringIO(), width=100)
    grid = progress.bar(text)
    console.print(grid)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert text in shown
    (first, *_) = grid.columns[0].cells  # type: ignore[attr-defined]
    assert isinstance(first, ProgressBar) is (share is not None)


def test_numbers_alone_are_told_seldom_and_what_is_new_at_once() -> None:
    said: list[str] = []
    now = [0.0]
    tell = progress.Seldom(said.append, clock=lambda: now[0])
    for second in range(12):
        now[0] = float(second)
        tell(f"{second} of 12 texts")
    tell("measuring")
    assert said == ["0 of 12 texts", "5 of 12 texts", "10 of 12 texts", "measuring"]


def test_without_a_terminal_there_are_lines_and_with_q_none(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.told(Options()) as tell:
        tell("reading texts")
    assert capsys.readouterr() == ("", "reading texts\n")
    with progress.told(Options(form="quiet")) as tell:
        tell("reading texts")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_one_line_changes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.told(Options()) as tell:
        tell("warning: 3 texts stand twice")
        tell("labels 1 of 4 texts")
        tell("measuring")
    shown = terminal.getvalue()
    assert "warning: 3 texts stand twice" in shown
    assert "\x1b[" in shown  # it is drawn over and over, and taken away at the end
    assert "measuring" in shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
