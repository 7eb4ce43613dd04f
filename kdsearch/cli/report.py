"""`kdsearch study report`: a study as the table that articles print, for people, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from kdsearch.cli import answers, output
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.cli.progress import told
from kdsearch.core.errors import ConflictError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdsearch.export.report import ReportRow
    from kdsearch.store.reads import StudyRow

ReportForm = Literal["human", "json", "csv", "quiet", "md"]
NOTE = (
    "Quality on the validation pool, 95 % intervals by bootstrap over its rows; of each student and scheme "
    "the best of the trials tried, which makes it optimistic. Gain: over the best trial on labels alone, "
    "on the same rows. Of finalists the mean over seeds, and intervals over those, too."
)


class Column(NamedTuple):
    """One column of the table for people."""

    name: str
    cell: Callable[[ReportRow], str]
    narrow: bool = False
    """Whether it is also shown where there is little room."""
    right: bool = True


def report(
    options: Options,
    study: StudyArgument,
    form: Annotated[
        ReportForm | None,
        typer.Option(
            "--format",
            show_default=False,
            help="A table for people, one JSON object, CSV, names only, or Markdown. [default: human]",
        ),
    ] = None,
    test: Annotated[
        bool,
        typer.Option(
            "--test", help="Read the test pool for each trial shown: once ever per trial, and counted."
        ),
    ] = False,
) -> None:
    """Print a study as a table: teachers, and each student under each scheme.

    What it was trained on and for how long, quality with its interval, gain over the same student on
    labels alone, samples per second.

    Example: kdsearch study report sms-spam --format md
    """
    row, rows = _read(options, study, test=test)
    _show(options, row, rows)


def _read(options: Options, study: str, *, test: bool) -> tuple[StudyRow, list[ReportRow]]:
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        if row.prepared is None:
            raise ConflictError(
                f"study {study!r} has no teacher yet, so there is nothing to report",
                hint=f"how far it is: kdsearch study show {study}",
            )
        from kdsearch.export import report as reporting

        trials = reads.trials(store.engine, row.id)
        with told(options) as tell:
            return row, reporting.report(store, row, trials, test=test, on_progress=tell)


def _show(options: Options, study: StudyRow, rows: Sequence[ReportRow]) -> None:
    if options.form == "md":
        output.write(markdown(study, rows))
        return
    data = {
        "study": study.name,
        "quality": study.quality_name,
        "latency": study.latency_name,
        "rows": [asdict(row) for row in rows],
    }
    ids = (row.trial for row in rows if row.trial is not None)
    output.show(
        options,
        "report",
        data,
        human=lambda: _human(study, rows),
        ids=ids,
        rows=[record(row) for row in rows],
    )


# ---------------------------------------------------------------- for people and for articles


def columns(study: StudyRow, rows: Sequence[ReportRow]) -> list[Column]:
    """The columns in which at least one row has something to say."""
    quality = study.quality_name
    every = (
        Column("model", lambda row: row.model, narrow=True, right=False),
        Column("training procedure", lambda row: row.procedure, narrow=True, right=False),
        Column("trial", lambda row: _count(row.trial)),
        Column("best of", lambda row: _count(row.tried)),
        Column("labels", lambda row: _count(row.labelled)),
        Column("soft labels", lambda row: _count(row.soft_labelled)),
        Column("rows seen", lambda row: _count(row.rows_seen)),
        Column("training", lambda row: duration(row.train_seconds), narrow=True),
        Column(f"{quality} %", lambda row: percent(quality_of(row), row.interval), narrow=True),
        Column("seeds", lambda row: _count(row.seeds if row.seeds > 1 else None)),
        Column("accuracy %", lambda row: "" if quality == "accuracy" else percent(row.scores.accuracy)),
        Column("gain, points", lambda row: _gain(row)),
        Column(
            "test %", lambda row: "" if row.test is None else percent(row.test.quality, row.test.interval)
        ),
        Column("samples/s", lambda row: _number(row.samples_per_s, 1), narrow=True),
        Column("MB", lambda row: _number(row.size_mb, 2)),
        Column("coverage %", lambda row: percent(row.scores.coverage)),
        Column("its teacher %", lambda row: "" if row.teacher is None else percent(row.teacher.quality)),
        Column("peak MB", lambda row: _number(row.peak_memory_mb, 0)),
    )
    return [column for column in every if any(column.cell(row) for row in rows)]


def _human(study: StudyRow, rows: Sequence[ReportRow]) -> Iterable[RenderableType]:
    from rich.text import Text

    wide = answers.roomy()
    shown = [column for column in columns(study, rows) if wide or column.narrow]
    made = output.table(*(c.name for c in shown), right=[c.name for c in shown if c.right])
    for row in rows:
        made.add_row(
            *(Text(column.cell(row)) for column in shown), style="magenta" if row.trial is None else ""
        )
    yield made
    yield Text(f"\n{NOTE}", style="dim")
    if not wide:
        yield Text(f"more columns: kdsearch study report {study.name} --format md", style="dim")


def markdown(study: StudyRow, rows: Sequence[ReportRow]) -> str:
    """The table and what its figures are."""
    shown = columns(study, rows)
    lines = [[column.name for column in shown], ["---:" if column.right else "---" for column in shown]]
    lines += [[column.cell(row).replace("|", "\\|") for column in shown] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{NOTE}"


def quality_of(row: ReportRow) -> float:
    """The mean over seeds where there are several."""
    return row.scores.quality if row.mean is None else row.mean


def percent(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """``96.7 (93.0 to 99.2)``."""
    if value is None:
        return ""
    bounds = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * value:.1f}{bounds}"


def duration(seconds: float | None) -> str:
    """``12.5 s``, ``3.1 min`` or ``1.4 h``."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def _gain(row: ReportRow) -> str:
    if row.gain is None:
        return ""
    value, low, high = (100 * figure for figure in row.gain)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


# ---------------------------------------------------------------- for programs


def record(row: ReportRow) -> Mapping[str, Any]:
    """One flat row of CSV; shares, not percents."""
    low, high = row.interval or (None, None)
    gain, gain_low, gain_high = row.gain or (None, None, None)
    test_low, test_high = (None, None) if row.test is None else row.test.interval
    return {
        "model": row.model,
        "procedure": row.procedure,
        "trial": row.trial,
        "tried": row.tried,
        "labelled": row.labelled,
        "soft_labelled": row.soft_labelled,
        "rows_seen": row.rows_seen,
        "train_seconds": row.train_seconds,
        "quality": quality_of(row),
        "seeds": row.seeds,
        "quality_low": low,
        "quality_high": high,
        "accuracy": row.scores.accuracy,
        "macro_f1": row.scores.macro_f1,
        "gain": gain,
        "gain_low": gain_low,
        "gain_high": gain_high,
        "test_quality": None if row.test is None else row.test.quality,
        "test_low": test_low,
        "test_high": test_high,
        "samples_per_s": row.samples_per_s,
        "size_mb": row.size_mb,
        "coverage": row.scores.coverage,
        "teacher_quality": None if row.teacher is None else row.teacher.quality,
        "peak_memory_mb": row.peak_memory_mb,
        **{f"recall {label}": share for label, share in row.scores.recall.items()},
    }
