"""`kdsearch predict`: classify texts with an exported student; neither torch nor transformers is loaded."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import output
from kdsearch.cli.options import Options
from kdsearch.core.errors import DataError, NotFoundError, UsageError

if TYPE_CHECKING:
    from kdsearch.export.predict import Prediction, Predictor
    from kdsearch.export.tables import Row

ROWS_AT_ONCE = 1024
Answers = Iterator[tuple["Row", "Prediction"]]

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="What `kdsearch export` made.", show_default=False)
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="csv, tsv, jsonl or txt (each also .gz), or parquet."),
]
ToOption = Annotated[
    Path | None, typer.Option("--to", metavar="FILE", help="Write here: csv, tsv or jsonl (each also .gz).")
]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", metavar="NAME", help="onnx or onnx-int8; by default the first there is.")
]


def predict(
    options: Options,
    folder: FolderArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts; without any, stdin line by line.", show_default=False),
    ] = None,
    file: FileOption = None,
    to: ToOption = None,
    column: Annotated[str, typer.Option("--text", metavar="NAME", help="Column of the text.")] = "text",
    runtime: RuntimeOption = "",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of onnxruntime.")] = 1,
) -> None:
    """Classify texts with an exported student.

    A file keeps its columns and gets `prediction` and `probability`. It is read and written row by row, so
    that it may be larger than the memory, and what is written appears when all of it is there.

    Example: kdsearch predict student "free prize, call now"

    Example: kdsearch predict student --file in.csv --to out.csv
    """
    if texts and file is not None:
        raise UsageError("texts and --file exclude each other", hint="leave one of them out")
    from kdsearch.export.predict import Predictor
    from kdsearch.export.tables import whole

    predictor = Predictor.open(folder, runtime=runtime, threads=threads)
    if to is None:
        rows = whole(_rows(texts, file, column, lambda _: None))
        _answer(options, predictor, rows, as_table=file is not None)
        return
    with _progress(options, shown=file is not None) as on_share:
        count = _write(_answers(predictor, whole(_rows(texts, file, column, on_share))), to)
    _tell(options, count, to)


@contextmanager
def _progress(options: Options, *, shown: bool) -> Iterator[Callable[[float], None]]:
    """A bar on stderr where that is a terminal; what this yields is told the share that is done."""
    console = output.stderr()
    if not (shown and console.is_terminal) or options.quiet:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("classifying"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=1.0)
        yield lambda share: progress.update(bar, completed=share)


def _answer(options: Options, predictor: Predictor, rows: Iterable[Row], *, as_table: bool) -> None:
    answers = _answers(predictor, rows)
    if options.json:
        _show_json(options, predictor, answers)
    elif options.csv or (as_table and not options.quiet):
        from kdsearch.export.tables import csv_parts

        for part in csv_parts(_record(row, found) for row, found in answers):
            output.write(part)
    else:
        _show_lines(options, answers)


def _rows(
    texts: list[str] | None, file: Path | None, column: str, on_share: Callable[[float], None]
) -> Iterable[Row]:
    from kdsearch.export.tables import Row, lines, read_texts

    if texts:
        return [Row(text, {"text": text}) for text in texts]
    if file is not None:
        if not file.is_file():
            raise NotFoundError(f"{file} does not exist", hint="check the path")
        return read_texts(file, column, on_share=on_share)
    if sys.stdin.isatty():
        raise UsageError(
            "nothing to classify", hint='kdsearch predict DIR "a text", or --file in.csv, or a pipe'
        )
    # whatever the locale says, as a file is read; a text that is not UTF-8 is an error, not a guess
    return _utf8(lines(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")))


def _utf8(rows: Iterable[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8 text: {error.reason}", hint="e.g. `iconv -f LATIN1 -t UTF-8`"
        ) from error


def _answers(predictor: Predictor, rows: Iterable[Row]) -> Answers:
    """Predictions row by row, a bounded number in memory."""
    remaining = iter(rows)
    while chunk := list(islice(remaining, ROWS_AT_ONCE)):
        yield from zip(chunk, predictor.predict([row.text for row in chunk]), strict=True)


def _record(row: Row, found: Prediction) -> Mapping[str, Any]:
    return {**row.fields, "prediction": found.label, "probability": round(found.probability, 6)}


def _write(answers: Answers, to: Path) -> int:
    """How many predictions were written."""
    from kdsearch.export.tables import writing

    count = 0
    with writing(to) as add:
        for row, found in answers:
            add(_record(row, found))
            count += 1
    return count


def _tell(options: Options, count: int, to: Path) -> None:
    if options.json:
        output.show(options, "predict", {"to": str(to), "rows": count}, human=list)
    else:
        output.say(f"{count} predictions written", options=options)
        output.write(str(to))


def _show_json(options: Options, predictor: Predictor, answers: Answers) -> None:
    labels = predictor.manifest.labels
    predictions = [
        {
            "text": row.text,
            "label": found.label,
            "probability": found.probability,
            "probabilities": dict(zip(labels, found.probabilities, strict=True)),
            "logits": dict(zip(labels, found.logits, strict=True)),
        }
        for row, found in answers
    ]
    output.show(options, "predict", {"labels": labels, "predictions": predictions}, human=list)


def _show_lines(options: Options, answers: Answers) -> None:
    for row, found in answers:
        if options.quiet:
            output.write(found.label)
        else:
            output.write(f"{found.label}\t{found.probability:.4f}\t{_one_line(row.text)}")


def _one_line(text: str) -> str:
    """Fit for a terminal: no line breaks, tabs or control characters."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())
