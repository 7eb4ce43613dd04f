"""Numbers and words as people read them on every page."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kdsearch.core.errors import KdsearchError

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~$:-])")
NONE = "—"


def sentence(error: KdsearchError) -> str:
    """An error as people read it: what, and what to do next."""
    return f"{error.what}. {error.hint}".removesuffix(". ")


def plain(text: str) -> str:
    """Text that somebody wrote, for a place that takes Markdown: every sign stands for itself."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def share(value: float | None) -> str:
    """A quality: ``0.9612``."""
    return NONE if _none(value) else f"{value:.4f}"


def ms(value: float | None) -> str:
    """``0.412 ms``."""
    return NONE if _none(value) else f"{value:.3g} ms"


def mb(value: float | None) -> str:
    """``1.52 MB``."""
    return NONE if _none(value) else f"{value:.3g} MB"


def count(value: float | None) -> str:
    """``950``, ``22.7 k``, ``1.31 M``: three digits say enough."""
    if value is None or _none(value):
        return NONE
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def times(teacher: float | None, student: float | None) -> str:
    """How often the student's figure goes into the teacher's: ``50×``; empty where one is unknown."""
    if teacher is None or student is None or _none(teacher) or _none(student) or not student or not teacher:
        return ""
    ratio = float(f"{teacher / student:.3g}")
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:g}×"


def points(difference: float | None) -> str:
    """A difference of two shares in points of a percent: ``−1.3 points``."""
    if difference is None or _none(difference):
        return NONE
    return f"{100 * difference:+.1f} points".replace("-", "−")


def duration(seconds: float | None) -> str:
    """``12 s``, ``3.1 min`` or ``1.4 h``."""
    if seconds is None or _none(seconds):
        return NONE
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def ago(then: datetime | None, now: datetime) -> str:
    """``5 s ago``."""
    return "never" if then is None else f"{duration(max(0.0, (now - then).total_seconds()))} ago"


def plural(number: int, word: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def as_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """Columns as CSV (RFC 4180); what is not known is left empty."""
    written = io.StringIO()
    writer = csv.writer(written)  # it quotes what is in its line ends: with \n alone, no \r inside a cell
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if value is None or value != value else value for value in row])
    return written.getvalue()


def _none(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
