"""Read a pool: CSV, TSV, JSON lines and Parquet files (each also gzipped), globs of them, and addresses.

Notable:
- The standard library's `csv` and `json`: they give the line of a mistake and take newlines and quotes in
  cells; pyarrow reads Parquet, batch by batch, the wanted columns alone.
- Gzip is known by its first bytes, not by the name.
- A TSV whose quotes do not pair up holds quotes as plain characters, as most published ones do.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from kdsearch.core.errors import DataError, Where, did_you_mean
from kdsearch.core.specdata import SourceSpec
from kdsearch.data import hub, synthetic
from kdsearch.data.rows import Cell, Columns, Cut, Rows, listed, require, to_rows

Reader: TypeAlias = Callable[[io.TextIOWrapper, str, Columns, Cut], Iterator[Cell]]

GZIP_MAGIC = b"\x1f\x8b"


def read_rows(source: SourceSpec, *, base: Path, text: str, label: str | None, split: str) -> Rows:
    """The rows of a source that its limits keep, in its order; relative paths start at `base`.

    `label` None reads no labels; `split` is what an address without a split means.
    Raises DataError for whatever cannot be read, with its file and line.
    """
    scheme, separator, _ = source.path.partition("://")
    if separator:
        if scheme not in ADDRESSES:
            hint = f"a path, {listed(f'{known}://' for known in ADDRESSES)}"
            raise DataError(f"{source.path}: {scheme}:// is not a kind of source", hint=hint)
        return ADDRESSES[scheme](source, Columns(text, label), split)
    return _read_files(source, base, Columns(text, label))


def _read_files(source: SourceSpec, base: Path, columns: Columns) -> Rows:
    rows, cut = Rows([], []), Cut(source)
    for path in cut.until_full(_files(source.path, base)):
        found = _read_file(path, columns, cut)
        rows.texts.extend(found.texts)
        rows.labels.extend(found.labels)
    cut.check()
    if not rows.texts:
        raise DataError(f"{source.path} holds no rows")
    return rows


def _files(pattern: str, base: Path) -> list[Path]:
    path = base / Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = listed(sorted(child.name for child in path.iterdir()))
        raise DataError(f"{path} is a folder", hint=f"name a file or a glob in it; it holds {inside}")
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
    files = [name for name in found if name.is_file()]
    if not files:
        raise DataError(f"{path} does not exist", hint=_what_is_there(path))
    return files


def _what_is_there(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"nor does the folder {folder}; relative paths start at the study file's folder"
    names = sorted(child.name for child in folder.iterdir())
    return did_you_mean(path.name, names) or f"{folder} holds {listed(names)}"


def _read_file(path: Path, columns: Columns, cut: Cut) -> Rows:
    reader = _reader(path)
    try:
        with path.open("rb") as raw:
            start = raw.read(len(GZIP_MAGIC))
            raw.seek(0)
            unpacked: Any = gzip.GzipFile(fileobj=raw) if start == GZIP_MAGIC else raw
            # UTF-8 with or without a byte-order mark; newlines as they are, so that cells keep theirs.
            with io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="") as file:
                return to_rows(reader(file, str(path), columns, cut), str(path), cut)
    except UnicodeDecodeError as error:
        hint = f"save it as UTF-8, e.g. `iconv -f LATIN1 -t UTF-8 {path.name}`"
        raise DataError(f"{path} is not UTF-8 text: {error.reason}", hint=hint) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is a damaged gzip file: {error}", hint="copy or download it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _reader(path: Path) -> Reader:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kept = [suffix for suffix in suffixes if suffix != ".gz"]
    suffix = kept[-1] if kept else ""
    if suffix not in FORMATS:
        hint = f"known endings: {', '.join(FORMATS)}, each also with .gz"
        raise DataError(f"{path}: no reader for {suffix or 'a file without an ending'}", hint=hint)
    return FORMATS[suffix]


# ---------------------------------------------------------------- CSV and TSV


def _csv(file: io.TextIOWrapper, name: str, columns: Columns, cut: Cut) -> Iterator[Cell]:
    return _delimited(csv.reader(file, strict=True), name, columns, cut)


def _tsv(file: io.TextIOWrapper, name: str, columns: Columns, cut: Cut) -> Iterator[Cell]:
    try:
        tried = cut.copy()
        quoted = csv.reader(file, delimiter="\t", strict=True)
        to_rows(_delimited(quoted, name, columns, tried), name, tried)
    except DataError:
        file.seek(0)
        plain = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return _delimited(plain, name, columns, cut)
    file.seek(0)
    return _delimited(csv.reader(file, delimiter="\t", strict=True), name, columns, cut)


def _delimited(reader: Any, name: str, columns: Columns, cut: Cut) -> Iterator[Cell]:
    """Cells of a CSV reader, whose first row names the columns."""
    try:
        header: list[str] = next(reader, [])
        require(columns, header, name, line=1)
        text = header.index(columns.text)
        label = None if columns.label is None else header.index(columns.label)
        for number, row in enumerate(cut.until_full(filter(None, reader)), 1):
            if len(row) != len(header):
                raise _ragged(name, reader.line_num, number, len(row), len(header))
            yield Cell(number, reader.line_num, row[text], None if label is None else row[label])
    except csv.Error as error:
        where = Where(file=name, line=reader.line_num)
        hint = 'quote a cell with "...", and write a quote inside it twice; is one never closed?'
        raise DataError(f"broken quoting: {error}", hint=hint, where=where) from error


def _ragged(name: str, line: int, row: int, cells: int, columns: int) -> DataError:
    return DataError(
        f"row {row} has {cells} cells, the header {columns}",
        hint='cells that hold the separator or a newline must be quoted with "..."',
        where=Where(file=name, line=line),
    )


# ---------------------------------------------------------------- JSON lines


def _jsonl(file: io.TextIOWrapper, name: str, columns: Columns, cut: Cut) -> Iterator[Cell]:
    keys: dict[str, None] = {}
    for number, (line, record) in enumerate(cut.until_full(_objects(file, name)), 1):
        if columns.text not in record:
            require(columns._replace(label=None), list(record), name, line)
        keys.update(dict.fromkeys(record))
        yield Cell(number, line, record[columns.text], record.get(columns.label or ""))
    if keys:
        # A row may lack its label; a file in which every row does has it under another name.
        require(columns, list(keys), name)


def _objects(file: io.TextIOWrapper, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(file, 1):
        if not content.strip():
            continue
        where = Where(file=name, line=line)
        hint = 'one object a line, e.g. {"text": "...", "label": "..."}'
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}", hint=hint, where=where) from error
        if not isinstance(record, dict):
            raise DataError(f"{type(record).__name__} instead of a JSON object", hint=hint, where=where)
        yield line, record


# ---------------------------------------------------------------- Parquet


def _parquet(file: io.TextIOWrapper, name: str, columns: Columns, cut: Cut) -> Iterator[Cell]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file.buffer)
        require(columns, table.schema_arrow.names, name)
        wanted = list(dict.fromkeys(filter(None, columns)))
        records = (record for batch in table.iter_batches(columns=wanted) for record in batch.to_pylist())
        for number, record in enumerate(cut.until_full(records), 1):
            yield Cell(number, None, record[columns.text], record.get(columns.label or ""))
    except pyarrow.ArrowException as error:
        raise DataError(f"{name} is not a readable Parquet file: {error}") from error


FORMATS: dict[str, Reader] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}


# ---------------------------------------------------------------- addresses


def _synthetic(source: SourceSpec, columns: Columns, split: str) -> Rows:
    texts, labels = synthetic.spam_opinions(synthetic.Recipe.parse(source.path))
    named: list[str | None] = list(labels) if columns.label is not None else [None] * len(texts)
    cut = Cut(source)
    cells = (Cell(i, None, *pair) for i, pair in enumerate(zip(texts, named, strict=True), 1))
    rows = to_rows(cut.until_full(cells), source.path, cut)
    cut.check()
    return rows


ADDRESSES: dict[str, Callable[[SourceSpec, Columns, str], Rows]] = {
    "hf": hub.read,
    "synthetic": _synthetic,
}
