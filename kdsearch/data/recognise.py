"""Which column of a file is the text and which the label, from its first rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from kdsearch.core.errors import DataError
from kdsearch.data.readers import GZIP_MAGIC
from kdsearch.data.rows import Columns

LOOKED_AT = 300
"""Rows from which columns are told apart."""
TEXT_NAMES = ("text", "sentence", "content", "review", "message", "query", "utterance", "title", "comment")
LABEL_NAMES = ("label", "labels", "class", "category", "intent", "sentiment", "target", "topic")

Record = Mapping[str, Any]


def columns(path: Path) -> Columns:
    """By their names, else by their values: texts are long and differ, labels repeat. Raises DataError."""
    rows = list(islice(_records(path), LOOKED_AT))
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) < 2:
        found = f"it has {', '.join(map(repr, names)) or 'no columns'}"
        raise DataError(
            f"{path} needs a column of texts and one of labels; {found}", hint="see its first line"
        )
    label = _named(names, LABEL_NAMES) or _by_values(rows, names, _repeats)
    others = [name for name in names if name != label]
    text = _named(others, TEXT_NAMES) or _by_values(rows, others, _length)
    return Columns(text, label)


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    lowered = {name.strip().lower(): name for name in reversed(names)}
    return next((lowered[word] for word in known if word in lowered), None)


def _by_values(rows: Sequence[Record], names: Sequence[str], worth: Callable[[list[str]], float]) -> str:
    values = {name: [str(row.get(name, "")) for row in rows] for name in names}
    return max(names, key=lambda name: worth(values[name]))


def _repeats(values: list[str]) -> float:
    """How often a value comes again; a column of one value alone tells nothing."""
    distinct = len(set(values))
    return -1.0 if distinct < 2 else len(values) / distinct


def _length(values: list[str]) -> float:
    return sum(map(len, values)) / max(1, len(values))


# ---------------------------------------------------------------- the first rows


def _records(path: Path) -> Iterator[Record]:
    kind = _kind(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path)
            return
        with _opened(path) as file:
            yield from _READ[kind](file)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="a UTF-8 file is expected") from error


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind not in (*_READ, ".parquet"):
        raise DataError(
            f"{path}: no reader for {kind or 'a file without an ending'}",
            hint=f"known endings: {', '.join((*_READ, '.parquet'))}",
        )
    return kind


def _opened(path: Path) -> io.TextIOWrapper:
    with path.open("rb") as raw:
        packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    open_text: Any = gzip.open if packed else open
    found: io.TextIOWrapper = open_text(path, "rt", encoding="utf-8-sig", newline="")
    return found


def _json_lines(file: io.TextIOWrapper) -> Iterator[Record]:
    for line in file:
        if line.strip():
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError(f"a line is no JSON object: {line[:40]!r}")
            yield found


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow.parquet as parquet

    for batch in parquet.ParquetFile(path).iter_batches(LOOKED_AT):
        yield from batch.to_pylist()


def _delimited(delimiter: str) -> Callable[[io.TextIOWrapper], Iterator[Record]]:
    def read(file: io.TextIOWrapper) -> Iterator[Record]:
        for row in csv.DictReader(file, delimiter=delimiter, restval=""):
            yield {name: value for name, value in row.items() if name is not None}

    return read


_READ: dict[str, Callable[[io.TextIOWrapper], Iterator[Record]]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
}
