"""What a command prints: one JSON object, CSV, bare names, or tables for people.

Data goes to stdout, everything said about it to stderr. Where stdout is no terminal the tables are
plain text without colours or cut lines.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kdsearch.cli.options import Options

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

PLAIN_WIDTH = 1000


def show(
    options: Options,
    thing: str,
    data: Any,
    *,
    human: Callable[[], Iterable[RenderableType]],
    ids: Iterable[object] = (),
    rows: Iterable[Mapping[str, Any]] | None = None,
) -> None:
    """Print a command's answer in the form that was asked for.

    ``thing`` names the schema: ``pareto`` gives ``kdsearch.pareto/v1``. ``ids`` is what -q prints, ``rows``
    what CSV has as its lines; where there are none, the whole answer is one.
    """
    if options.json:
        text = dumps({"schema": f"kdsearch.{thing}/v1", "data": data})
    elif options.csv:
        text = as_table([data] if rows is None else rows)
    elif options.quiet:
        text = "\n".join(str(name) for name in ids)
    else:
        text = rendered(human())
    if text:
        write(text)


def as_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a column for each value that any row has: ``{a: {b: 1}}`` is 1 under ``a.b``."""
    from kdsearch.export.tables import as_csv

    flat = [dict(_flat(_plain(row))) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    # what is an object in one row and absent in another has no column of its own
    kept = [name for name in columns if not any(other.startswith(f"{name}.") for other in columns)]
    return as_csv({name: row.get(name) for name in kept} for row in flat)


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", None if value in ({}, []) else value


def write(text: str) -> None:
    """A line or more of data on stdout; a reader that went away (| head) is no error."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter must not try to flush the rest again on leaving
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def dumps(value: Any) -> str:
    """JSON text: indented for a terminal; NaN and infinities become null."""
    indent = 2 if sys.stdout.isatty() else None
    return json.dumps(_plain(value), ensure_ascii=False, indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value


def rendered(parts: Iterable[RenderableType]) -> str:
    """Rich renderables as the text that stdout can show."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    screen = Console()
    console = Console(
        file=buffer,
        width=screen.width if terminal else PLAIN_WIDTH,
        force_terminal=terminal,
        no_color=screen.no_color,
        highlight=False,
        emoji=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip("\n").split("\n"))


def stderr() -> Console:
    """The console for what is said beside the data."""
    from rich.console import Console

    wide = None if sys.stderr.isatty() else PLAIN_WIDTH
    return Console(stderr=True, width=wide, highlight=False, emoji=False, soft_wrap=True)


def say(text: str, *, options: Options | None = None) -> None:
    """One line beside the data, on stderr; nothing with -q."""
    from rich.text import Text

    if options is None or not options.quiet:
        stderr().print(Text(text))


def complain(message: str, *, hint: str, where: str) -> None:
    """An error on stderr: what, where, and what to do next."""
    from rich.text import Text

    console = stderr()
    head = Text.assemble(("error: ", "bold red"), message)
    console.print(Text.assemble((f"{where}: ", "bold"), head) if where else head)
    if hint:
        console.print(Text.assemble(("hint: ", "cyan"), hint))


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table without boxes; the columns named in ``right`` hold figures."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    figures = set(right)
    for column in columns:
        made.add_column(
            column, justify="right" if column in figures else "left", no_wrap=column != "parameters"
        )
    return made


def figure(value: float | None, digits: int = 3, *, unit: str = "") -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}{unit}"


def log_to_stderr() -> None:
    """Send log lines to stderr: stdout is for data."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            # plain tracebacks: one with the values of variables could show a password
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
