"""Search space: what a parameter may be (Param) and what a study lets it be (a Dimension)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

Scalar: TypeAlias = bool | int | float | str | tuple[int, ...]
"""A parameter's value. Kernel sizes and the like are tuples of integers."""


class Suggests(Protocol):
    """The part of an Optuna trial that a search space needs."""

    def suggest_categorical(
        self, name: str, choices: Sequence[bool | int | float | str | None]
    ) -> object: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...


def encode(value: Scalar) -> bool | int | float | str:
    """As Optuna keeps it: a tuple (2, 3, 4) becomes ``2-3-4``."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Fixed:
    """A scalar in the study file: not searched."""

    value: Scalar

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """The value itself; Optuna never hears of it."""
        return self.value

    def values(self) -> tuple[Scalar, ...]:
        """Every value this dimension can take, for checking."""
        return (self.value,)


@dataclass(frozen=True)
class Choice:
    """A list in the study file: one of these."""

    options: tuple[Scalar, ...]

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """One of the options; where there is one alone, Optuna never hears of it."""
        if len(self.options) == 1:
            return self.options[0]
        by_code = {encode(option): option for option in self.options}
        return by_code[trial.suggest_categorical(name, tuple(by_code))]  # type: ignore[index]

    def values(self) -> tuple[Scalar, ...]:
        """Every value this dimension can take, for checking."""
        return self.options


@dataclass(frozen=True)
class Range:
    """``{min, max, log, step}`` in the study file; both ends included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """A number between the ends."""
        if self.integer:
            step = int(self.step or 1)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def values(self) -> tuple[Scalar, ...]:
        """The two ends, for checking."""
        ends = (self.low, self.high)
        return tuple(int(end) for end in ends) if self.integer else ends


Dimension: TypeAlias = Fixed | Choice | Range
Kind: TypeAlias = Literal["int", "float", "str", "bool", "ints"]


@dataclass(frozen=True, kw_only=True)
class Param:
    """What a student, scheme or training parameter may be.

    ``low`` and ``high`` are the legal ends (included unless ``open_low``); ``architecture`` says
    that the value changes the latency, so figures are not shared across its values (such a
    parameter must be discrete).
    """

    kind: Kind
    default: Dimension
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    allowed: tuple[str, ...] = ()
    architecture: bool = False
    when: tuple[str, str | tuple[str, ...]] | None = None
    """(other parameter, value or values): this one exists only where the other one has such a value."""
    doc: str = ""

    def exists(self, values: Mapping[str, Scalar]) -> bool:
        """Whether there is such a parameter beside the values of the others."""
        return self.when is None or values.get(self.when[0]) in self.conditions

    @property
    def conditions(self) -> tuple[str, ...]:
        """The values of the other parameter beside which this one exists."""
        if self.when is None:
            return ()
        return (self.when[1],) if isinstance(self.when[1], str) else self.when[1]

    def expected(self) -> str:
        """In words, for messages: ``an integer from 1 to 4096``."""
        if self.kind == "str":
            return "one of " + ", ".join(self.allowed)
        if self.kind == "bool":
            return "true or false"
        noun = {"int": "an integer", "float": "a number", "ints": "a list of integers"}[self.kind]
        low = f" {'above' if self.open_low else 'from'} {self.low:g}" if self.low > -math.inf else ""
        high = f" up to {self.high:g}" if self.high < math.inf else ""
        return noun + low + high

    def accepts(self, value: Scalar) -> bool:
        """Whether one value is legal."""
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind == "str":
            return isinstance(value, str) and value in self.allowed
        if self.kind == "ints":
            return isinstance(value, tuple) and bool(value) and all(self._in_range(v) for v in value)
        return self._is_number(value) and self._in_range(value)  # type: ignore[arg-type]

    def narrow(self, dimension: Dimension) -> Dimension:
        """The dimension in this parameter's kind: `{min: 1, max: 16}` of a number has real values.

        The dimension must have been checked; what it lacks in kind is not found here.
        """
        if self.kind != "float":
            return dimension
        if isinstance(dimension, Range):
            return replace(dimension, low=float(dimension.low), high=float(dimension.high), integer=False)
        if isinstance(dimension, Choice):
            return Choice(tuple(float(option) for option in dimension.options))  # type: ignore[arg-type]
        return Fixed(float(dimension.value))  # type: ignore[arg-type]

    def _is_number(self, value: Scalar) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (self.kind == "float" and isinstance(value, float) and math.isfinite(value))

    def _in_range(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high


Space: TypeAlias = Mapping[str, Param]


def suggest_all(
    space: Space, narrowed: Mapping[str, Dimension], trial: Suggests, prefix: str
) -> dict[str, Scalar]:
    """A value for each parameter that exists, asked under the name ``prefix.parameter``.

    ``narrowed`` replaces defaults. A parameter with ``when`` must stand after the one it names.
    """
    values: dict[str, Scalar] = {}
    for name, param in space.items():
        if param.exists(values):
            dimension = param.narrow(narrowed.get(name, param.default))
            values[name] = dimension.suggest(trial, f"{prefix}.{name}")
    return values
