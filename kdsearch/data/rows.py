"""Rows of a pool as they come from any source: texts, label names, and what counts as either."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kdsearch.core.errors import DataError, Where, did_you_mean

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
SHOWN = 12
"""Names listed in a message before the rest is only counted."""


@dataclass(frozen=True)
class Rows:
    """Texts and, beside each, the name of its label; None where it has none."""

    texts: list[str]
    labels: list[str | None]


class Columns(NamedTuple):
    """Names of the columns wanted; `label` is None where labels are not read."""

    text: str
    label: str | None


class Cell(NamedTuple):
    """One row as a source gives it; `row` counts from 1 without a header."""

    row: int
    line: int | None
    text: object
    label: object


def to_rows(cells: Iterable[Cell], source: str) -> Rows:
    """Texts and label names of raw cells; raises DataError for a cell that is neither."""
    texts: list[str] = []
    labels: list[str | None] = []
    for cell in cells:
        texts.append(_text(cell, source))
        labels.append(_label(cell, source))
    return Rows(texts, labels)


def require(columns: Columns, present: Sequence[str], source: str, line: int | None = None) -> None:
    """Raise DataError, with the columns there are, unless every wanted column is there once."""
    where = Where(file=source, line=line)
    for name in filter(None, columns):
        if name not in present:
            near = did_you_mean(name, present)
            named = "Name the columns with `text:` and `label:` under `data:`; all pools have the same names"
            hint = f"{near} {named}".strip()
            raise DataError(
                f"no column {name!r}; the columns are {listed(map(repr, present))}", hint=hint, where=where
            )
        if list(present).count(name) > 1:
            raise DataError(f"the column {name!r} stands twice", hint="rename one of them", where=where)


def listed(names: Iterable[str]) -> str:
    """Names joined by commas; beyond `SHOWN` of them the rest is counted."""
    every = list(names)
    more = [f"and {len(every) - SHOWN} more"] if len(every) > SHOWN else []
    return ", ".join(every[:SHOWN] + more) or "none"


def _text(cell: Cell, source: str) -> str:
    if isinstance(cell.text, str):
        return clean(cell.text)
    if cell.text is None or _is_nan(cell.text):
        return ""
    kind = type(cell.text).__name__
    raise DataError(
        f"row {cell.row}: the text is {kind} {str(cell.text)[:40]!r}",
        hint="texts are strings; is `text:` under `data:` the right column?",
        where=Where(file=source, line=cell.line),
    )


def _label(cell: Cell, source: str) -> str | None:
    """1, 1.0 and ``"1"`` are the label ``1``; true is ``true``; null, NaN and blanks are no label."""
    value = cell.label
    if value is None or _is_nan(value):
        return None
    if isinstance(value, str):
        return clean(value).strip() or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (int, float)):
        return str(value)
    raise DataError(
        f"row {cell.row}: the label is {type(value).__name__} {str(value)[:40]!r}",
        hint="a label is a name, a number, true or false; is `label:` under `data:` the right column?",
        where=Where(file=source, line=cell.line),
    )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def clean(text: str) -> str:
    """Half of a surrogate pair (a cut ``\\ud83d`` in JSON) is no text: it cannot be written as UTF-8."""
    if LONE_SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
