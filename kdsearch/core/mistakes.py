"""What pydantic found wrong with a study file, in our words: one Problem a mistake."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kdsearch.core.errors import Problem, closest
from kdsearch.core.spec import Ceiling, StudySpec, VariantSpec
from kdsearch.core.specdata import SourceSpec
from kdsearch.core.specdimensions import RANGE_KEYS
from kdsearch.core.specteacher import HistoricalSpec

Loc: TypeAlias = tuple[str | int, ...]
NAME_EXPECTED = "1 to 63 lower-case letters, digits, `.`, `_`, `-`, the first a letter or digit"
EXAMPLES = {
    "version": "version: 1",
    "name": "name: sms-spam",
    "data": "data: {train: train.csv, validation: validation.csv}",
    "teacher": "teacher: {model: DIRECTORY-OR-HUB-ID}",
    "train": "train: PATH",
    "validation": "validation: PATH",
    "path": "path: PATH",
    "type": "type: NAME",
    "max": "max: 2.0",
}
"""How a key that has no default is written."""

SHAPES: Mapping[type[BaseModel], str] = {
    SourceSpec: "a path, or {path: PATH, limit: 1000}",
    VariantSpec: "names, or {type: NAME, PARAMETER: ...}",
    HistoricalSpec: "{model: DIRECTORY-OR-HUB-ID} or {slice: 1/3}",
    Ceiling: "{max: 2.0}",
}
"""What a section that is no plain mapping takes."""


def problems_of(error: ValidationError) -> list[Problem]:
    """One problem for each mistake, without positions."""
    return [_problem(details) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails) -> Problem:
    special = _SPECIAL.get(details["type"])
    return special(details) if special else _wrong_value(details)


def _own(details: ErrorDetails) -> Problem:
    context = dict(details["ctx"])
    return Problem(path=(*details["loc"], *context.pop("at")), **context)


def _unknown_key(details: ErrorDetails) -> Problem:
    *parents, key = details["loc"]
    model = _model_at(tuple(parents))
    keys = tuple(model.model_fields) if model else ()
    return Problem(
        path=details["loc"],
        message=f"unknown key `{key}`" + (f" in `{dotted(tuple(parents))}`" if parents else ""),
        expected="one of " + ", ".join(keys),
        suggestion=closest(str(key), keys),
        on_key=True,
    )


def _missing_key(details: ErrorDetails) -> Problem:
    *parents, key = details["loc"]
    where = f"`{dotted(tuple(parents))}`" if parents else "the study"
    return Problem(
        path=tuple(parents),
        message=f"{where} lacks the key `{key}`",
        expected=EXAMPLES.get(str(key), str(key)),
        on_key=True,
    )


def _wrong_value(details: ErrorDetails) -> Problem:
    loc, value = details["loc"], details["input"]
    field = _field_at(loc)
    message = f"`{dotted(loc)}` is {shown(value)}"
    if _searches(value) and field is not None and _scalar_type(field.annotation):
        message = f"`{dotted(loc)}` cannot be searched"
    return Problem(
        path=loc,
        message=message,
        expected=expected(field) if field else "a mapping of keys and values",
        suggestion=closest(value, _options(field)) if isinstance(value, str) and field else "",
    )


def _searches(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, Mapping) and set(value) <= set(RANGE_KEYS))


_SPECIAL: Mapping[str, Callable[[ErrorDetails], Problem]] = {
    "study": _own,
    "extra_forbidden": _unknown_key,
    "missing": _missing_key,
}


def dotted(loc: Loc) -> str:
    """``students[0].type``."""
    parts = (f"[{entry}]" if isinstance(entry, int) else f".{entry}" for entry in loc)
    return "".join(parts).removeprefix(".")


def shown(value: Any) -> str:
    """A value as it would stand in the file, cut to a line's share."""
    if value is None:
        return "empty"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------- what a field takes


def expected(field: FieldInfo) -> str:
    """In words: ``an integer from 1 to 1000``."""
    kind = _bare(field.annotation)
    model, options = _model(kind), _options(field)
    if options:
        return " or ".join((", ".join(options[:-1]), options[-1])) if len(options) > 1 else options[0]
    if get_origin(kind) is tuple:
        return "a list of " + (SHAPES[model] if model else "texts")
    if model is not None:
        return SHAPES.get(model, "a mapping with " + ", ".join(model.model_fields))
    if any(hasattr(rule, "pattern") and rule.pattern for rule in field.metadata):
        return NAME_EXPECTED
    nouns: dict[Any, str] = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    return nouns.get(kind, "a mapping of texts to texts") + _bounds(field)


def _bounds(field: FieldInfo) -> str:
    rules = {
        name: getattr(rule, name)
        for rule in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(rule, name)
    }
    words = {"ge": "from", "gt": "above", "le": "up to", "lt": "below"}
    return "".join(f" {word} {rules[name]}" for name, word in words.items() if name in rules)


def _bare(annotation: Any) -> Any:
    """Without ``| None`` and ``Annotated``."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else annotation
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _scalar_type(annotation: Any) -> bool:
    kind = _bare(annotation)
    return kind in (int, float, str, bool) or get_origin(kind) is Literal


def _options(field: FieldInfo | None) -> tuple[str, ...]:
    kind = _bare(field.annotation) if field else None
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def _model(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation holds, also inside a union or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for arg in get_args(annotation) if (model := _model(arg))), None)


def _model_at(loc: Loc) -> type[BaseModel] | None:
    model: type[BaseModel] | None = StudySpec
    for entry in loc:
        if isinstance(entry, str):
            field = model.model_fields.get(entry) if model else None
            model = _model(field.annotation) if field else None
    return model


def _field_at(loc: Loc) -> FieldInfo | None:
    """The innermost field on the way; None at the root."""
    names = [entry for entry in loc if isinstance(entry, str)]
    fields = (
        model.model_fields[name]
        for i, name in reversed(list(enumerate(names)))
        if (model := _model_at(tuple(names[:i]))) is not None and name in model.model_fields
    )
    return next(fields, None)
