"""How far something is that takes more than a moment: a bar on a terminal, a line now and then elsewhere.

Always on stderr. What is told are sentences such as ``teacher labels train: 4096 of 9000 texts``; a share in
them becomes a bar.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kdsearch.cli import output
from kdsearch.cli.options import Options

if TYPE_CHECKING:
    from rich.console import RenderableType

SELDOM_S = 5.0
"""Where there is no terminal, sentences that differ in their numbers alone are told at most so often."""
Told = Callable[[str], None]
_NUMBERS = re.compile(r"(\d+(?:\.\d+)?) of (\d+(?:\.\d+)?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")
_DIGITS = re.compile(r"[\d.,]+")


def share_of(text: str) -> float | None:
    """What part of the way a sentence says is done: ``3 of 4``, ``75 %``; None where it does not say."""
    if found := _PERCENT.search(text):
        return min(1.0, float(found[1]) / 100)
    if (found := _NUMBERS.search(text)) and float(found[2]) > 0:
        return min(1.0, float(found[1]) / float(found[2]))
    return None


def bar(text: str, *, width: int = 16) -> RenderableType:
    """The sentence, and a bar before it where it tells a share."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    share = share_of(text)
    cells = [] if share is None else [ProgressBar(total=1.0, completed=share, width=width)]
    grid.add_row(*cells, Text(text, style="cyan"))
    return grid


@contextmanager
def told(options: Options) -> Iterator[Told]:
    """Takes one sentence after another while something goes on; nothing is shown with -q."""
    if options.quiet:
        yield lambda text: None
    elif sys.stderr.isatty():
        with _screen() as tell:
            yield tell
    else:
        yield Seldom(output.say)


class Seldom:
    """A new sentence at once; the same one with other numbers now and then."""

    def __init__(self, say: Told, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._last, self._at = "", -SELDOM_S

    def __call__(self, text: str) -> None:
        """Say it, or leave it out."""
        kind, now = _DIGITS.sub("#", text), self._clock()
        if kind != self._last or now - self._at >= SELDOM_S:
            self._say(text)
            self._last, self._at = kind, now


@contextmanager
def _screen() -> Iterator[Told]:
    """One line that changes, with the time that it has taken; warnings stay above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False, emoji=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(text: str) -> None:
            if text.startswith("warning:"):
                progress.print(text, markup=False)
                return
            share = share_of(text)
            progress.update(
                task, description=text, total=None if share is None else 1.0, completed=share or 0.0
            )

        yield tell
