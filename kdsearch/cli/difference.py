"""`kdsearch study diff`: which keys of two studies, or of a study and a file, differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from kdsearch.cli import output
from kdsearch.cli.completing import studies_and_files
from kdsearch.cli.options import Options

if TYPE_CHECKING:
    from rich.console import RenderableType

CHANGEABLE = "budget"
"""The one section that may differ where a study is resumed."""


class Change(NamedTuple):
    """One key and what stands there; None where it is left out."""

    key: str
    a: Any
    b: Any


SideArgument = Annotated[
    str,
    typer.Argument(
        help="A study's name or a study file.", show_default=False, autocompletion=studies_and_files
    ),
]


def diff(options: Options, a: SideArgument, b: SideArgument) -> None:
    """Show which keys of two studies differ, or of a study and a file.

    Defaults are written out, so that what is left out and what is said alike are the same.

    Example: kdsearch study diff sms-spam study.yaml
    """
    sides = [_spec(options, name) for name in (a, b)]
    changes = differences(*sides)
    resumable = all(change.key.split(".")[0] == CHANGEABLE for change in changes)
    rows = [change._asdict() for change in changes]
    data = {"a": a, "b": b, "same": not changes, "resumable": resumable, "changes": rows}
    output.show(
        options,
        "study_diff",
        data,
        human=lambda: [_table(a, b, changes)] if changes else [],
        ids=(change.key for change in changes),
        rows=rows,
    )
    if not options.json:
        output.say(_verdict(a, b, changes, resumable=resumable), options=options)


def _spec(options: Options, name: str) -> Mapping[str, Any]:
    """What a study is made of: of a file, else of the study of that name."""
    if Path(name).is_file():
        from kdsearch.core.studyfile import spec_to_json
        from kdsearch.search import check

        return spec_to_json(check.load(Path(name), os.environ).spec)
    with options.reading() as store:
        from kdsearch.store import reads

        return reads.study(store.engine, name).spec


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """In the order of the keys of `a`, then those that `b` alone has."""
    left, right = dict(_flat(a)), dict(_flat(b))
    keys = dict.fromkeys((*left, *right))
    pairs = (Change(key, left.get(key), right.get(key)) for key in keys)
    return [change for change in pairs if change.a != change.b]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; students and schemes by their type: ``students.textcnn.filters``."""
    for key, item in value.items():
        yield from _entry(f"{prefix}{key}", item)


def _entry(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value and not _is_range(value):
        yield from _flat(value, f"{name}.")
    elif isinstance(value, list) and value and all(isinstance(v, Mapping) and "type" in v for v in value):
        for variant in value:
            yield f"{name}.{variant['type']}", "tried"
            rest = {key: item for key, item in variant.items() if key != "type"}
            yield from _flat(rest, f"{name}.{variant['type']}.")
    else:
        yield name, value


def _is_range(value: Mapping[str, Any]) -> bool:
    return {"min", "max"} <= set(value) <= {"min", "max", "log", "step"}


def _table(a: str, b: str, changes: list[Change]) -> RenderableType:
    from rich.text import Text

    made = output.table("key", a, b)
    for change in changes:
        made.add_row(*(Text(text) for text in (change.key, _shown(change.a), _shown(change.b))))
    return made


def _shown(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return json.dumps(value, ensure_ascii=False)


def _verdict(a: str, b: str, changes: list[Change], *, resumable: bool) -> str:
    if not changes:
        return f"{a} and {b} say the same"
    if resumable:
        return f"{len(changes)} keys differ, all of the budget: `kdsearch run FILE` resumes the study"
    return f"{len(changes)} keys differ"
