"""A dimension of the search space as a study file writes it: scalar, list, or ``{min, max, log, step}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from kdsearch.core.errors import closest
from kdsearch.core.space import Choice, Dimension, Fixed, Range, Scalar

RANGE_KEYS = ("min", "max", "log", "step")


class Frozen(BaseModel):
    """A section of a study file: frozen, strict, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


def wrong(
    message: str, expected: str, *, suggestion: str = "", at: tuple[str, ...] = (), on_key: bool = False
) -> PydanticCustomError:
    """A mistake at the place of the value being validated (or of its key), or at a key below it."""
    context = {"message": message, "expected": expected, "suggestion": suggestion, "at": at, "on_key": on_key}
    return PydanticCustomError("study", "{message}", context)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, list):
        if value and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            return tuple(value)
        raise wrong(f"{value!r} is not a list of integers", "e.g. [2, 3, 4]")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"{value!r} is not a finite number", "a finite number")
    if isinstance(value, (bool, int, float, str)):
        return value
    raise wrong(
        "nothing stands here" if value is None else f"{value!r} is not a value",
        "a number, a text, true or false",
    )


def _range(value: Mapping[str, Any]) -> Range:
    expected = "{min: 0.1, max: 1.0} with optional log: true or step: 0.1"
    unknown = [key for key in value if key not in RANGE_KEYS]
    if unknown:
        suggestion = closest(str(unknown[0]), RANGE_KEYS)
        raise wrong(f"unknown key `{unknown[0]}` in a range", expected, suggestion=suggestion)
    low, high, log, step = (value.get(key) for key in RANGE_KEYS)
    numbers = [n for n in (low, high) if isinstance(n, (int, float)) and not isinstance(n, bool)]
    if len(numbers) < 2 or not all(math.isfinite(n) for n in numbers):
        raise wrong("a range needs the numbers min and max", expected)
    return _checked_range(numbers[0], numbers[1], log, step, expected)


def _checked_range(low: float, high: float, log: Any, step: Any, expected: str) -> Range:
    if not low < high:
        raise wrong(f"min {low!r} is not below max {high!r}", "min below max")
    if not (log is None or isinstance(log, bool)):
        raise wrong(f"log is {log!r}", "true or false")
    if log and step is not None:
        raise wrong("log and step exclude each other", expected)
    if log and low <= 0:
        raise wrong(f"min {low!r} of a logarithmic range is not above 0", "min above 0")
    _check_step(low, high, step)
    integer = all(isinstance(n, int) for n in (low, high, step if step is not None else 1))
    return Range(low, high, log=bool(log), step=step, integer=integer)


def _check_step(low: float, high: float, step: Any) -> None:
    if step is None:
        return
    number = isinstance(step, (int, float)) and not isinstance(step, bool) and math.isfinite(step)
    if not number or step <= 0:
        raise wrong(f"step is {step!r}", "a number above 0")
    start, end, stride = (Decimal(str(n)) for n in (low, high, step))
    if (end - start) % stride:
        last = start + (end - start) // stride * stride
        raise wrong(f"step {step!r} from min {low!r} does not meet max {high!r}", f"e.g. max: {last}")


def dimension(value: Any) -> Dimension:
    """Scalar, list or mapping as written, into a Dimension."""
    if isinstance(value, (Fixed, Choice, Range)):
        return value
    if isinstance(value, Mapping):
        return _range(value)
    if isinstance(value, list):
        if not value:
            raise wrong("an empty list leaves nothing to choose", "at least one value")
        options = tuple(_scalar(v) for v in value)
        if len(set(map(repr, options))) < len(options):
            raise wrong("the same value stands twice in a choice", "distinct values")
        return Choice(options)
    return Fixed(_scalar(value))


DimensionField: TypeAlias = Annotated[Fixed | Choice | Range, BeforeValidator(dimension)]


def not_empty(name: str) -> BeforeValidator:
    """For a section whose defaults are taken by ``{}``: its bare key would silently leave it out."""

    def check(value: Any) -> Any:
        if value is None:
            expected = f"`{name}: {{}}` for its defaults, or no `{name}`"
            raise wrong(f"`{name}` is empty", expected, on_key=True)
        return value

    return BeforeValidator(check)
