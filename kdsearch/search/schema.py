"""JSON Schema of the study file, so that editors complete it: the spec's keys, and the registries' students,
schemes and parameters.

It is for completion and first mistakes; `study validate` knows more, such as what excludes what.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

from pydantic import BaseModel

from kdsearch.core.space import Choice, Dimension, Param, Range, Space
from kdsearch.core.spec import QUALITY_PATTERN, StudySpec
from kdsearch.search.presets import PRESETS
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.samplers import SAMPLERS
from kdsearch.search.spaces import TRAINING, Spaces

Schema: TypeAlias = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
NO_PRUNER = "none"
NAMES_OF_STUDENTS = "A list; left out, all of them with their own ranges. Parameters not given are searched."
NAMES_OF_SCHEMES = "A list; left out, `none` and `offline`. The control arm `none` is always tried."


def study_schema(spaces: Spaces) -> Schema:
    """Of a whole study file."""
    made: Schema = _untitled(StudySpec.model_json_schema())
    sections: dict[str, Schema] = made["$defs"]
    described = {model.__name__: _docs(model) for model in _models(StudySpec)}
    for name, section in [("StudySpec", made), *sections.items()]:
        for key, text in described.get(name, {}).items():
            section["properties"][key]["description"] = text
    sections["SourceSpec"] = _path_or(sections["SourceSpec"])
    made["properties"] |= {
        "students": {"description": NAMES_OF_STUDENTS, **_variants("student", spaces.students)},
        "schemes": {"description": NAMES_OF_SCHEMES, **_variants("scheme", spaces.schemes)},
    }
    sections["TrainingSpec"]["properties"] |= {name: _dimension(param) for name, param in TRAINING.items()}
    sections["HistoricalSpec"]["properties"]["slice"] |= {"anyOf": _SLICE}
    sections["ObjectivesSpec"]["properties"]["quality"] |= _QUALITY
    _name_what_searches(sections["SearchSpec"]["properties"])
    for gone in ("VariantSpec", "Fixed", "Choice", "Range", "Slice"):
        sections.pop(gone, None)
    return {"$schema": DIALECT, "title": "kdsearch study file, version 1", **made}


_SLICE = [{"type": "string", "pattern": r"^\s*\d+\s*/\s*\d+\s*$"}, {"type": "null"}]
_QUALITY = {
    "anyOf": [{"enum": ["accuracy", "macro_f1"]}, {"type": "string", "pattern": QUALITY_PATTERN}],
    "description": "Maximised: accuracy, macro_f1, f1:<label> or recall@precision=0.95:<label>.",
}


def _name_what_searches(properties: Schema) -> None:
    properties["sampler"] |= {"enum": sorted(SAMPLERS)}
    properties["pruner"] |= {"enum": [NO_PRUNER, *sorted(set(PRUNERS) - {NO_PRUNER})]}
    properties["presets"]["items"] = {"enum": sorted(PRESETS)}


def _path_or(section: Schema) -> Schema:
    text = "A path (csv, tsv, jsonl, parquet), a glob, hf://NAME@REVISION or synthetic://..."
    return {"anyOf": [{"type": "string", "minLength": 1, "description": text}, section]}


# ---------------------------------------------------------------- students, schemes and their parameters


def _variants(kind: str, known: Mapping[str, Space]) -> Schema:
    bare = {"enum": list(known), "description": f"A {kind} with its own ranges."}
    entries = [bare, *(_variant(name, space) for name, space in known.items())]
    return {"type": "array", "minItems": 1, "items": {"anyOf": entries}}


def _variant(name: str, space: Space) -> Schema:
    return {
        "type": "object",
        "properties": {
            "type": {"const": name},
            **{key: _dimension(param) for key, param in space.items()},
        },
        "required": ["type"],
        "additionalProperties": False,
    }


def _dimension(param: Param) -> Schema:
    """A scalar is fixed, a list a choice, ``{min, max, log, step}`` a range."""
    value = _value(param)
    forms = [value, {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}]
    if param.kind in ("int", "float"):
        forms.append(_range(value))
    return {"anyOf": forms, "description": _explained(param)}


def _value(param: Param) -> Schema:
    if param.kind == "str":
        return {"enum": list(param.allowed)}
    if param.kind == "bool":
        return {"type": "boolean"}
    number = {"type": "number" if param.kind == "float" else "integer"}
    lowest = {"exclusiveMinimum" if param.open_low else "minimum": param.low}
    bounds = {**lowest, "maximum": param.high}
    number |= {name: end for name, end in bounds.items() if abs(end) != float("inf")}  # type: ignore[misc]
    return {"type": "array", "items": number, "minItems": 1} if param.kind == "ints" else number


def _range(value: Schema) -> Schema:
    log = {"type": "boolean", "description": "Even on a logarithmic scale."}
    step = {"type": value["type"], "exclusiveMinimum": 0}
    return {
        "type": "object",
        "properties": {"min": value, "max": value, "log": log, "step": step},
        "required": ["min", "max"],
        "additionalProperties": False,
    }


def _explained(param: Param) -> str:
    doc = f"{param.doc}. " if param.doc else ""
    where = ""
    if param.when is not None:
        where = f" Exists with `{param.when[0]}: {' or '.join(param.conditions)}` only."
    return f"{doc}{_sentence(param.expected())}; by default {_shown(param.default)}.{where}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shown(dimension: Dimension) -> str:
    if isinstance(dimension, Range):
        return f"{dimension.low:g} to {dimension.high:g}{', log' if dimension.log else ''}"
    values = dimension.options if isinstance(dimension, Choice) else (dimension.value,)
    return " or ".join(str(list(v) if isinstance(v, tuple) else v) for v in values)


# ---------------------------------------------------------------- what the spec says of itself


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and the sections in it."""
    yield model
    for field in model.model_fields.values():
        yield from (found for part in _parts(field.annotation) for found in _models(part))


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _parts(inner)


def _docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstring below each key that has one."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    found = {}
    for key, below in pairwise(body):
        named = isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[key.target.id] = inspect.cleandoc(str(below.value.value))  # type: ignore[attr-defined]
    return found


def _untitled(value: Any) -> Any:
    """Without pydantic's titles, which only repeat the keys; a property of that name stays."""
    if isinstance(value, dict):
        return {k: _untitled(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return [_untitled(v) for v in value] if isinstance(value, list) else value
