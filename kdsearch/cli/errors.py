"""Errors at the door: what, where, hint on stderr (or a JSON object on stdout), and an exit code."""

from __future__ import annotations

import re
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType
from typing import Any

from kdsearch.cli import output
from kdsearch.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, KdsearchError, StudyFileError, UsageError

_CREDENTIALS = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@]*@", re.IGNORECASE)
_PASSWORD_ITEM = re.compile(r"(?P<before>\bpassword\s*=\s*)[^\s&'\"]+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Report:
    """An error as it is shown."""

    code: str
    message: str
    exit_code: int
    hint: str = ""
    where: dict[str, Any] | None = None
    problems: tuple[dict[str, Any], ...] = ()
    text: str = ""
    """What a person reads instead of the message, if it is laid out already."""


def guarded(command: Callable[[], Any]) -> int:
    """Run a command; every error becomes a report, and the exit code is returned."""
    asked = _before_dashes(sys.argv[1:])
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = command()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where no error may pass
        if "--debug" in asked:
            sys.stderr.write(redacted("".join(traceback.format_exception(error))))
        report = reported(error)
        show(report, as_json=wants_json(asked))
        return report.exit_code


def _before_dashes(argv: list[str]) -> list[str]:
    return argv[: argv.index("--")] if "--" in argv else argv


def wants_json(arguments: list[str]) -> bool:
    """Whether errors are to be JSON: asked of the words themselves, which may be no valid command line."""
    pairs = pairwise(arguments)
    return bool({"--json", "--format=json"} & set(arguments)) or ("--format", "json") in pairs


def _terminated(number: int, frame: FrameType | None) -> None:
    # leave through the context managers, so that an embedded server is let go
    raise SystemExit(EXIT_TERMINATED)


def redacted(text: str) -> str:
    """The text without passwords of URLs."""
    return _PASSWORD_ITEM.sub(r"\g<before>***", _CREDENTIALS.sub(r"\g<before>:***@", text))


def reported(error: Exception) -> Report:
    """Any exception as a report."""
    if isinstance(error, StudyFileError):
        return _study_file(error)
    if isinstance(error, KdsearchError):
        return _known(error)
    if hasattr(error, "format_message"):  # Typer's own: a wrong option or command
        return _usage(error)
    if _database_away(error):
        return Report(
            code="storage",
            exit_code=5,
            message=f"the database does not answer: {_first_line(error)}",
            hint="kdsearch doctor tells what is wrong with it",
        )
    return Report(
        code="unexpected",
        exit_code=1,
        message=f"unexpected {type(error).__name__}: {_first_line(error)}",
        hint="the same command with --debug shows the traceback",
    )


def _known(error: KdsearchError) -> Report:
    where = error.where
    place = None if where is None else {"file": where.file, "line": where.line, "column": where.column}
    return Report(
        code=error.code, exit_code=error.exit_code, message=error.what, hint=error.hint, where=place
    )


def _study_file(error: StudyFileError) -> Report:
    from kdsearch.core.studyfile import render

    known = _known(error)
    problems = tuple(
        {
            "path": list(problem.path),
            "message": problem.message,
            "expected": problem.expected,
            "suggestion": problem.suggestion,
            "line": problem.where.line if problem.where else None,
            "column": problem.where.column if problem.where else None,
        }
        for problem in error.problems
    )
    return Report(
        code=known.code,
        exit_code=known.exit_code,
        message=known.message,
        hint=known.hint,
        where=known.where or {"file": error.file, "line": None, "column": None},
        problems=problems,
        text=render(error),
    )


def _usage(error: Any) -> Report:
    if type(error).__name__ == "NoArgsIsHelpError":
        # the help was printed while the error was made
        return Report(code="usage", exit_code=2, message="")
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "kdsearch"
    return Report(
        code="usage",
        exit_code=UsageError.exit_code,
        message=error.format_message(),
        hint=f"{path} --help",
    )


def _database_away(error: Exception) -> bool:
    # looked up, not imported: an error of SQLAlchemy's means that it is loaded
    module = sys.modules.get("sqlalchemy.exc")
    return module is not None and isinstance(error, (module.OperationalError, module.InterfaceError))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


def show(report: Report, *, as_json: bool) -> None:
    """Print a report: a JSON object on stdout, or text on stderr."""
    if as_json:
        output.write(output.dumps({"schema": "kdsearch.error/v1", "error": _payload(report)}))
        return
    if report.text or report.message:
        output.complain(
            redacted(report.text or report.message), hint=redacted(report.hint), where=_place(report)
        )


def _payload(report: Report) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "code": report.code,
        "message": redacted(report.message),
        "hint": redacted(report.hint),
        "where": report.where,
    }
    return {**payload, "problems": list(report.problems)} if report.problems else payload


def _place(report: Report) -> str:
    if report.where is None or report.text:
        return ""
    return ":".join(str(part) for part in report.where.values() if part is not None)
