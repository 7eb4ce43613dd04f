"""A study file, read: the spec, the text as written, its normalised form and its SHA-256.

All mistakes of a file come out at once, each with its position. `search.check.load` adds to them what
only the registries of students and schemes can know.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kdsearch.core.canonical import canonical_json, sha256_of
from kdsearch.core.errors import Problem, StudyFileError, Where
from kdsearch.core.mistakes import problems_of
from kdsearch.core.placeholders import expand
from kdsearch.core.positions import Document, YamlPath, parse
from kdsearch.core.space import Choice, Dimension, Fixed, Range
from kdsearch.core.spec import SearchSpec, StudySpec, VariantSpec
from kdsearch.core.specdata import DataSpec, SourceSpec
from kdsearch.core.specteacher import FinetuneSpec, Slice, TeacherSpec

_STAND_INS: Mapping[str, Any] = {
    "version": 1,
    "name": "unnamed",
    "data": {"train": "-", "validation": "-"},
    "teacher": {"model": "-"},
}
"""For required sections with mistakes, so that the rest of the file can still be looked at."""

_LATER: Mapping[type[BaseModel], frozenset[str]] = {
    StudySpec: frozenset({"teachers", "pretrained"}),
    DataSpec: frozenset({"language", "show_texts"}),
    SourceSpec: frozenset({"label_noise"}),
    TeacherSpec: frozenset({"joint"}),
    FinetuneSpec: frozenset({"label_smoothing", "select"}),
    SearchSpec: frozenset({"presets", "pruner", "rungs"}),
}
"""Keys that the first version did not have: at their default the hash leaves them out, so that its studies
can be resumed. A key that defaults to None is left out of the normalised form anyway."""


@dataclass(frozen=True)
class StudyFile:
    """A study file and what came of it."""

    spec: StudySpec
    """With ``${}`` filled in."""
    text: str
    path: Path
    base: Path
    """The folder that relative paths count from."""
    normalised: str
    """Canonical JSON with the defaults written out and ``${}`` as it stands."""
    sha256: str
    """Of the normalised form without `budget` and unused later keys: while it is the same, it resumes."""
    document: Document

    def locate(self, problem: Problem) -> Problem:
        """The problem with its position and source line."""
        return self.document.locate(problem)

    def mistake(self, path: YamlPath, message: str, expected: str) -> StudyFileError:
        """An error about one value of this file, for whoever finds it later than `check`."""
        return failure(self, (Problem(path=path, message=message, expected=expected),))


def read_study(path: Path, *, env: Mapping[str, str]) -> StudyFile:
    """Read a study file; StudyFileError holds all mistakes that need no registry to be seen."""
    file, problems = examine(path, env=env)
    if problems:
        raise failure(file, problems)
    return file


def failure(file: StudyFile, problems: tuple[Problem, ...]) -> StudyFileError:
    """The error with every problem placed, in the order of the file."""
    located = [file.locate(problem) for problem in problems]
    located.sort(key=lambda p: (p.where.line or 0, p.where.column or 0) if p.where else (0, 0))
    return StudyFileError(tuple(located), file=str(file.path))


def examine(path: Path, *, env: Mapping[str, str]) -> tuple[StudyFile, tuple[Problem, ...]]:
    """Read a study file as far as it goes: what is right in it, and what is wrong.

    Where there are problems, sections without mistakes are in `spec`, and stand-ins replace the
    others. A file that is no YAML mapping at all raises StudyFileError.
    """
    text = _text(path)
    document = parse(text, str(path))
    if not isinstance(document.data, dict):
        raise StudyFileError(document.problems or (_no_mapping(path),), file=str(path))
    spec, problems = _salvage(document)
    data, unfilled = expand(document.data, env)
    # A placeholder where none belongs often is a wrong value too: said once.
    problems = tuple(p for p in problems if document.nearest(p.path) not in {u.path for u in unfilled})
    filled = spec if problems or unfilled else StudySpec.model_validate(data)
    file = StudyFile(
        spec=filled,
        text=text,
        path=path,
        base=path.resolve().parent,
        normalised=canonical_json(spec_to_json(spec)),
        sha256=sha256_of(_hashed(spec)),
        document=document,
    )
    return file, (*problems, *unfilled)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"cannot read the study file: {reason}"
    except UnicodeDecodeError as error:
        message = (
            f"the study file is not UTF-8 text: byte {error.start + 1} is {error.object[error.start]:#04x}"
        )
    where = Where(file=str(path))
    problem = Problem(path=(), message=message, expected="a YAML file in UTF-8", where=where)
    raise StudyFileError((problem,), file=str(path))


def _no_mapping(path: Path) -> Problem:
    expected = "the keys version, name, data, teacher"
    where = Where(file=str(path), line=1, column=1)
    return Problem(path=(), message="the study file is not a mapping", expected=expected, where=where)


# ---------------------------------------------------------------- what is right in a wrong file


def _salvage(document: Document) -> tuple[StudySpec, tuple[Problem, ...]]:
    """Validate; take wrong values out and validate again, until what is left is a study."""
    data, problems = deepcopy(document.data), list(document.problems)
    removed = {document.nearest(problem.path) for problem in problems}
    for path in removed:
        _remove(data, path)
    while True:
        try:
            return StudySpec.model_validate(data), tuple(problems)
        except ValidationError as error:
            found = [(problem, document.nearest(problem.path)) for problem in problems_of(error)]
        # What a removal alone makes wrong, such as a key that is now missing, is not a mistake of the file.
        problems += [p for p, place in found if not any(gone[: len(place)] == place for gone in removed)]
        for _, place in found:
            removed.add(place)
            _remove(data, place)


def _remove(data: dict[str, Any], path: YamlPath) -> None:
    """Drop the innermost key on the way; no list loses an element, so that places stay true."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    if len(path) < 2:
        for key in map(str, path or [key for key in _STAND_INS if key not in data]):
            data.pop(key, None)
            data.update({key: deepcopy(_STAND_INS[key])} if key in _STAND_INS else {})
        return
    owner: Any = data
    for entry in path[:-1]:
        if isinstance(owner, dict) and entry not in owner:
            return
        owner = owner[entry]
    owner.pop(path[-1], None)


# ---------------------------------------------------------------- spec and JSON


def spec_to_json(spec: StudySpec) -> dict[str, Any]:
    """The spec as a study file would say it, defaults written out; `spec_from_json` is its inverse."""
    plain: dict[str, Any] = _plain(spec)
    return plain


def spec_from_json(data: Mapping[str, Any]) -> StudySpec:
    """From what `spec_to_json` gave, also after a trip through JSON text."""
    return StudySpec.model_validate(dict(data))


def _hashed(spec: StudySpec) -> dict[str, Any]:
    """What decides whether a study is the same: all of the file but `budget`."""
    return {key: value for key, value in _plain(spec, later=False).items() if key != "budget"}


def _plain(value: Any, *, later: bool = True) -> Any:
    """As JSON; without ``later`` those keys are left out that came later and stand at their default."""
    if isinstance(value, VariantSpec):
        return {"type": value.type, **_plain(value.params)}
    if isinstance(value, BaseModel):
        fields = ((name, getattr(value, name)) for name in type(value).model_fields)
        return {
            name: _plain(field, later=later)
            for name, field in fields
            if field is not None and (later or not _unused_later_key(value, name))
        }
    if isinstance(value, Fixed | Choice | Range):
        return _plain_dimension(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Slice):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _unused_later_key(section: BaseModel, name: str) -> bool:
    came_later = name in _LATER.get(type(section), frozenset())
    return came_later and getattr(section, name) == type(section).model_fields[name].default


def _plain_dimension(dimension: Dimension) -> Any:
    if isinstance(dimension, Range):
        ends = {"min": dimension.low, "max": dimension.high}
        return {
            **ends,
            **({"log": True} if dimension.log else {}),
            **({"step": dimension.step} if dimension.step is not None else {}),
        }
    return _plain(dimension.options if isinstance(dimension, Choice) else dimension.value)


# ---------------------------------------------------------------- rendering


def render(error: StudyFileError) -> str:
    """Every mistake with its position, source line, caret, what was expected, and a suggestion."""
    return "\n\n".join("\n".join(_lines(problem)) for problem in error.problems)


def _lines(problem: Problem) -> Iterator[str]:
    where = problem.where
    yield f"{where}: {problem.message}" if where else problem.message
    if where and where.column and problem.source_line:
        yield f"    {problem.source_line}"
        yield f"    {_indent(problem.source_line[: where.column - 1])}^"
    if problem.expected:
        yield f"  expected: {problem.expected}"
    if problem.suggestion:
        yield f"  did you mean `{problem.suggestion}`?"


def _indent(text: str) -> str:
    """Blanks as wide as the text in a terminal: tabs stay, wide characters take two."""
    return "".join("\t" if c == "\t" else " " * (1 + (unicodedata.east_asian_width(c) in "WF")) for c in text)
