"""YAML text to plain data, with the place of every key and value.

ruamel.yaml's node tree is walked by hand: that keeps positions for scalars too, finds all duplicate
keys instead of the first, and builds nothing but mappings, lists, numbers, texts, booleans and null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from kdsearch.core.errors import Problem, Where

YamlPath: TypeAlias = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_NUMBERS = {_TAG + name for name in ("int", "float", "bool", "null")}
_TEXTS = {_TAG + name for name in ("str", "timestamp", "value")}


class Spot(NamedTuple):
    """Line and column, counted from 1."""

    line: int
    column: int


class Place(NamedTuple):
    """Where a key and its value stand; a list's element has its value's place twice."""

    key: Spot
    value: Spot


@dataclass(frozen=True)
class Document:
    """A parsed file. Every problem in it that YAML alone can see is in ``problems``."""

    file: str
    lines: tuple[str, ...]
    data: Any
    places: Mapping[YamlPath, Place]
    problems: tuple[Problem, ...]

    def nearest(self, path: YamlPath) -> YamlPath:
        """The longest way to something in the file along ``path``.

        Entries that are not keys of the file (union tags, the ``path`` of a shortened source) are skipped.
        """
        found: YamlPath = ()
        for entry in path:
            if (*found, entry) in self.places:
                found = (*found, entry)
        return found

    def locate(self, problem: Problem) -> Problem:
        """The problem with its position and source line filled in, unless it has them."""
        if problem.where is not None:
            return problem
        place = self.places[self.nearest(problem.path)]
        spot = place.key if problem.on_key else place.value
        return placed(problem, self.file, self.lines, spot)


def placed(problem: Problem, file: str, lines: tuple[str, ...], spot: Spot) -> Problem:
    """The problem at a known spot."""
    source = lines[spot.line - 1] if spot.line <= len(lines) else ""
    where = Where(file=file, line=spot.line, column=spot.column)
    return replace(problem, where=where, source_line=source)


def parse(text: str, file: str) -> Document:
    """Parse a file's text; text that is not YAML gives an empty document with one problem."""
    lines = tuple(text.splitlines())
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except YAMLError as error:
        return Document(file, lines, None, {}, (_syntax(error, file, lines),))
    walk = _Walk(yaml=yaml)
    walk.places[()] = Place(Spot(1, 1), Spot(1, 1))
    data = None if root is None else walk.visit(root, ())
    problems = tuple(placed(problem, file, lines, spot) for problem, spot in walk.problems)
    return Document(file, lines, data, walk.places, problems)


def _syntax(error: YAMLError, file: str, lines: tuple[str, ...]) -> Problem:
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        what = str(error).partition("\n")[0]
        return Problem(path=(), message=f"not YAML: {what}", where=Where(file=file))
    mark = error.problem_mark
    context = f" {error.context}" if error.context else ""
    problem = Problem(
        path=(), message=f"not YAML: {error.problem}{context}", expected=_cure(lines, mark.line)
    )
    return placed(problem, file, lines, Spot(mark.line + 1, mark.column + 1))


def _cure(lines: tuple[str, ...], line: int) -> str:
    source = lines[line] if line < len(lines) else ""
    if "${" in source:
        return 'quotes around a value with ${...} between { and }: {path: "${DATA}/train.csv"}'
    if "\t" in source:
        return "spaces instead of tabs"
    return "keys and values as `key: value`, lists as `[a, b]`"


@dataclass
class _Walk:
    """One pass over the node tree."""

    yaml: YAML
    places: dict[YamlPath, Place] = field(default_factory=dict)
    problems: list[tuple[Problem, Spot]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def visit(self, node: Any, path: YamlPath) -> Any:
        """The node's plain value; the places below it are recorded."""
        if id(node) in self.seen:
            self._mistake(
                path, node, "anchors and aliases are not used in study files", "the value, written out"
            )
            return None
        self.seen.add(id(node))
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return self._sequence(node, path)
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: YamlPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._mistake(path, key_node, "a key is not a text", "a name")
                continue
            key = str(key_node.value)
            if key in values:
                self._mistake((*path, key), key_node, f"the key `{key}` stands twice", "each key once")
                continue
            self.places[(*path, key)] = Place(_spot(key_node), _spot(value_node))
            values[key] = self.visit(value_node, (*path, key))
        return values

    def _sequence(self, node: SequenceNode, path: YamlPath) -> list[Any]:
        values = []
        for index, child in enumerate(node.value):
            self.places[(*path, index)] = Place(_spot(child), _spot(child))
            values.append(self.visit(child, (*path, index)))
        return values

    def _scalar(self, node: Any, path: YamlPath) -> Any:
        if isinstance(node, ScalarNode) and node.tag in _NUMBERS:
            return self.yaml.constructor.construct_object(node)
        if isinstance(node, ScalarNode) and node.tag in _TEXTS:
            return str(node.value)
        self._mistake(path, node, f"the tag {node.tag} is not used in study files", "a plain value")
        return None

    def _mistake(self, path: YamlPath, node: Any, message: str, expected: str) -> None:
        self.problems.append((Problem(path=path, message=message, expected=expected), _spot(node)))


def _spot(node: Any) -> Spot:
    return Spot(node.start_mark.line + 1, node.start_mark.column + 1)
