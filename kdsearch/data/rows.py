"""Rows of a pool as they come from any source: texts, label names, what counts as either, which are kept."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from kdsearch.core.errors import DataError, Where, did_you_mean
from kdsearch.core.specdata import SourceSpec

Item = TypeVar("Item")

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


class Cut:
    """What a source keeps of its rows, asked row after row: `keep_labels`, then `per_class`, then `limit`.

    It always keeps the first rows that it may, so that a smaller pool is part of a larger one. Rows without
    a label are of no class: `keep_labels` drops them, `per_class` does not count them.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._seen: Counter[str | None] = Counter()
        self._kept: Counter[str | None] = Counter()

    @property
    def full(self) -> bool:
        """Whether no further row can be kept; reading may end."""
        limit, keep, each = self._source.limit, self._source.keep_labels, self._source.per_class
        if limit is not None and self._kept.total() >= limit:
            return True
        return bool(keep and each) and all(self._kept[label] >= (each or 0) for label in keep or ())

    def keeps(self, label: str | None) -> bool:
        """Whether the next row, of this label, is kept."""
        self._seen[label] += 1
        keep, each = self._source.keep_labels, self._source.per_class
        if self.full or (keep is not None and label not in keep):
            return False
        if each is not None and label is not None and self._kept[label] >= each:
            return False
        self._kept[label] += 1
        return True

    def until_full(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items up to where nothing more is kept; what comes after is not even read."""
        iterator = iter(items)
        while not self.full:
            try:
                yield next(iterator)
            except StopIteration:
                return

    def copy(self) -> Cut:
        """One that goes on from the same state."""
        return deepcopy(self)

    def check(self) -> None:
        """After the last row: raises DataError for a label of `keep_labels` that no row has."""
        absent = [label for label in self._source.keep_labels or () if label not in self._seen]
        if absent and not self.full:
            found = sorted(label for label in self._seen if label is not None)
            raise DataError(
                f"{self._source.path}: no row has the label {listed(map(repr, absent))} of `keep_labels`",
                hint=f"{did_you_mean(absent[0], found)} its labels are {listed(map(repr, found))}".strip(),
            )


def to_rows(cells: Iterable[Cell], source: str, cut: Cut) -> Rows:
    """Texts and label names of the cells that `cut` keeps; raises DataError for a cell that is neither."""
    texts: list[str] = []
    labels: list[str | None] = []
    for cell in cells:
        label = _label(cell, source)
        if cut.keeps(label):
            texts.append(_text(cell, source))
            labels.append(label)
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
