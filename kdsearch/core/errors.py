"""The exception tree; every error says what, where, why, and what to do next.

KdsearchError (exit 1)
├── UsageError (2)              a wrong argument or option
│   ├── StudyFileError          every mistake of a study file at once
│   └── DataError               unreadable, empty or inconsistent data
├── NotFoundError (3)           a study, trial or exported folder that is not there
├── ConflictError (4)           the name is taken, the study file changed
├── StorageError (5)            Postgres unreachable, wrong password, wrong schema
│   └── ArtifactError           the artifact store is unreachable or an artifact is damaged
├── NothingFeasibleError (6)    no trial within the budget asked for
├── VerificationError (7)       the exported student is not what was measured
├── TooManyFailuresError (8)    the study failed more trials than its budget allows
└── LeaseLostError              somebody else runs this trial now; the caller must let go
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def closest(word: str, options: Iterable[str]) -> str:
    """The option that a mistyped word probably means; empty if none is near."""
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.6)
    swapped = [option for option in near if sorted(option) == sorted(word.lower())]
    return by_lower[(swapped or near)[0]] if near else ""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """``did you mean 'x'?``, or nothing where no option is near."""
    near = closest(word, options)
    return f"did you mean {near!r}?" if near else ""


@dataclass(frozen=True, kw_only=True)
class Where:
    """A place in a file; line and column count from 1."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


class KdsearchError(Exception):
    """Something went wrong that kdsearch can explain."""

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "", where: Where | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.where = where

    @property
    def code(self) -> str:
        """A stable name for machines, e.g. ``not_found``."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class UsageError(KdsearchError):
    """A wrong argument or option."""

    exit_code = 2


class DataError(UsageError):
    """Unreadable, empty or inconsistent data."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in a study file.

    ``path`` is the way of keys and list positions to the value, e.g. ``("students", 0, "filters")``.
    """

    path: tuple[str | int, ...]
    message: str
    expected: str = ""
    suggestion: str = ""
    on_key: bool = False
    """True where the key itself is wrong, so that the position is that of the key."""
    where: Where | None = None
    source_line: str = ""


class StudyFileError(UsageError):
    """A study file with mistakes: all of them, each with its position."""

    def __init__(self, problems: tuple[Problem, ...], *, file: str) -> None:
        count = len(problems)
        super().__init__(f"{file}: {count} mistake{'s' if count != 1 else ''} in the study file")
        self.problems = problems
        self.file = file


class NotFoundError(KdsearchError):
    """A study, trial or exported folder that is not there."""

    exit_code = 3


class ConflictError(KdsearchError):
    """What is asked for contradicts what is stored."""

    exit_code = 4


class StorageError(KdsearchError):
    """Postgres is unreachable, refuses the login, or has another schema."""

    exit_code = 5


class ArtifactError(StorageError):
    """The artifact store is unreachable, or an artifact is missing or damaged."""


class NothingFeasibleError(KdsearchError):
    """No trial lies within the budget asked for."""

    exit_code = 6


class VerificationError(KdsearchError):
    """The exported student does not equal what was measured."""

    exit_code = 7


class TooManyFailuresError(KdsearchError):
    """More trials failed than the study's budget allows."""

    exit_code = 8


class LeaseLostError(KdsearchError):
    """Another worker holds this lease now: what the caller computed is not recorded."""
