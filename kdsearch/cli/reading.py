"""A study file as commands take it: read, and checked against all that its text alone tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdsearch.core.studyfile import StudyFile

FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A study file (YAML).",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]


def loaded(file: Path) -> StudyFile:
    """StudyFileError holds every mistake."""
    from kdsearch.search import check
    from kdsearch.search.foreseen import foreseen

    found = check.load(file, os.environ)
    check.check_facts(found, foreseen(found.spec))
    return found
