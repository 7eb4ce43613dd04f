"""Files of texts in, files of predictions out: row by row, however large they are."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kdsearch.core.errors import DataError, UsageError, Where
from kdsearch.data.rows import clean

ROWS_AT_ONCE = 1024
PARQUET = ".parquet"
OnShare = Callable[[float], None]
LONGEST_FIELD = min(sys.maxsize, 2**31 - 1)


@dataclass(frozen=True)
class Row:
    """One text and the fields that it came with."""

    text: str
    fields: Mapping[str, Any]


def read_texts(path: Path, column: str, *, on_share: OnShare = lambda _: None) -> Iterator[Row]:
    """The rows of a csv, tsv, jsonl or txt file (each also .gz) or of a parquet file.

    Of txt, every line is a text. ``on_share`` hears now and then how much of the file was read, from 0 to 1.
    """
    suffix = _suffix(path, (*READERS, PARQUET))
    try:
        if suffix == PARQUET:
            yield from _parquet(path, column, on_share)
            return
        size = max(1, path.stat().st_size)
        with path.open("rb") as raw, _open(raw, path) as file:
            for number, row in enumerate(READERS[suffix](file, path, column)):
                if number % ROWS_AT_ONCE == 0:
                    on_share(raw.tell() / size)
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="a UTF-8 file is expected") from error


def lines(file: Iterable[str]) -> Iterator[Row]:
    """Every line is a text, empty ones too."""
    for line in file:
        text = line.rstrip("\r\n")
        yield Row(text, {"text": text})


def whole(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows without halves of characters, which no tokenizer reads and no file takes."""
    for row in rows:
        fields = {
            name: clean(value) if isinstance(value, str) else value for name, value in row.fields.items()
        }
        yield Row(clean(row.text), fields)


def _suffix(path: Path, known: Iterable[str]) -> str:
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    if suffix.lower() not in known:
        raise UsageError(f"{path}: what kind of file is this?", hint="expected " + ", ".join(known))
    return suffix.lower()


def _open(raw: IO[bytes], path: Path) -> IO[str]:
    bytes_: Any = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
    return io.TextIOWrapper(bytes_, encoding="utf-8-sig", newline="")


def _parquet(path: Path, column: str, on_share: OnShare) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            total, number = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                on_share(number / total)
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(_text(fields, column, path, number), fields)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read: {error}", hint="a parquet file is expected") from error


def _delimited(delimiter: str) -> Callable[[IO[str], Path, str], Iterator[Row]]:
    def read(file: IO[str], path: Path, column: str) -> Iterator[Row]:
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.DictReader(file, delimiter=delimiter, restval="")
        for fields in reader:
            known = {name: value for name, value in fields.items() if name is not None}
            yield Row(_text(known, column, path, reader.line_num), known)

    return read


def _json_lines(file: IO[str], path: Path, column: str) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise DataError(f"not JSON: {error}", where=Where(file=str(path), line=number)) from error
        if not isinstance(fields, dict):
            raise DataError("not a JSON object", where=Where(file=str(path), line=number))
        yield Row(_text(fields, column, path, number), fields)


def _plain(file: IO[str], path: Path, column: str) -> Iterator[Row]:
    return lines(file)


def _text(fields: Mapping[str, Any], column: str, path: Path, line: int) -> str:
    if column not in fields:
        raise DataError(
            f"no column {column!r}",
            where=Where(file=str(path), line=line),
            hint=f"the columns are {', '.join(map(str, fields))}: choose one with --text NAME",
        )
    value = fields[column]
    return "" if value is None else str(value)


READERS: dict[str, Callable[[IO[str], Path, str], Iterator[Row]]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".txt": _plain,
}


@contextmanager
def writing(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that adds a record to a csv, tsv or jsonl file (each also .gz).

    The file appears when all is written.
    """
    suffix = _suffix(path, WRITERS)
    partial = path.with_name(path.name + ".partial")
    try:
        with _create(partial, compressed=path.suffix.lower() == ".gz") as file:
            yield WRITERS[suffix](file)
        os.replace(partial, path)  # noqa: PTH105 - the word for what it does: atomically
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _create(path: Path, *, compressed: bool) -> IO[str]:
    if compressed:
        return gzip.open(path, "wt", encoding="utf-8", newline="")
    return path.open("w", encoding="utf-8", newline="")


def delimited_writer(file: IO[str], delimiter: str = ",") -> Callable[[Mapping[str, Any]], None]:
    """Writes records as a table whose columns are those of the first one."""
    made: list[csv.DictWriter[str]] = []

    def write(record: Mapping[str, Any]) -> None:
        if not made:
            made.append(csv.DictWriter(file, list(record), delimiter=delimiter, extrasaction="ignore"))
            made[0].writeheader()
        made[0].writerow({name: _cell(value) for name, value in record.items()})

    return write


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else value


def _json_writer(file: IO[str]) -> Callable[[Mapping[str, Any]], None]:
    return lambda record: print(json.dumps(record, ensure_ascii=False), file=file)


WRITERS: dict[str, Callable[[IO[str]], Callable[[Mapping[str, Any]], None]]] = {
    ".csv": delimited_writer,
    ".tsv": lambda file: delimited_writer(file, "\t"),
    ".jsonl": _json_writer,
}


def as_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as CSV text."""
    return "\n".join(csv_parts(records))


def csv_parts(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CSV text of some records at a time, without its last line break."""
    buffer = io.StringIO(newline="")
    write = delimited_writer(buffer)
    for number, record in enumerate(records, start=1):
        write(record)
        if number % ROWS_AT_ONCE == 0:
            yield _taken(buffer)
    if buffer.tell():
        yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue().replace("\r\n", "\n").removesuffix("\n")
    buffer.seek(0)
    buffer.truncate()
    return text
