"""Configurations as points between which distances mean something: for Gaussian processes and forests.

Numbers are scaled to [0, 1] over their range (over its logarithm where it is searched so), lists of numbers
by rank, names are one-hot at distance 1 from each other. A parameter that does not exist is no value: it lies
in the origin, and all its values lie on an arc around it. So it is equally far from each of them, nothing
lies between two students that both lack it, and the distance is Euclidean (kernels stay positive definite).

Letters: N configurations, K columns, F parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Choice, Dimension, Fixed, Range, Scalar
from kdsearch.search.plan import Plan
from kdsearch.search.union import dimensions

FloatArray = npt.NDArray[np.float64]
ANGLE = 2.0
RADIUS = 0.5 / math.sin(ANGLE / 2)
"""Of the arc: its ends are at distance 1."""


@dataclass(frozen=True)
class Feature:
    """One parameter."""

    name: str
    dimension: Dimension
    group: str
    """``student``, ``scheme`` or ``training``."""

    @cached_property
    def is_number(self) -> bool:
        """Whether its values have an order."""
        if isinstance(self.dimension, Choice):
            return all(isinstance(o, int | float) and not isinstance(o, bool) for o in self.dimension.options)
        return isinstance(self.dimension, Range)

    @cached_property
    def width(self) -> int:
        """How many columns it takes."""
        if self.is_number:
            return 2 if self.is_conditional else 1
        return len(self.dimension.values())

    @property
    def is_conditional(self) -> bool:
        """Parameters of students and schemes do not exist beside others."""
        return "." in self.name

    def columns(self, value: Scalar | None) -> list[float]:
        """Of a value; None where the parameter does not exist."""
        found = self._listed.get(value)
        return self._columns(value) if found is None else found

    @cached_property
    def _listed(self) -> dict[Scalar | None, list[float]]:
        """Of no value, and of each in a list."""
        listed = self.dimension.values() if isinstance(self.dimension, Choice) else ()
        return {value: self._columns(value) for value in (None, *listed)}

    def _columns(self, value: Scalar | None) -> list[float]:
        if not self.is_number:
            scale = RADIUS if self.is_conditional else 1 / math.sqrt(2)
            return [scale * (option == value) for option in self.dimension.values()]
        if value is None:
            return [0.0] * self.width
        share = self.share(value)
        if not self.is_conditional:
            return [share]
        return [RADIUS * math.sin(ANGLE * share), RADIUS * math.cos(ANGLE * share)]

    def share(self, value: Scalar) -> float:
        """Place of a number between the ends, 0 to 1."""
        if isinstance(self.dimension, Choice):
            ranked = sorted(self.dimension.options, key=float)  # type: ignore[arg-type]
            return ranked.index(value) / (len(ranked) - 1) if value in ranked else 0.5
        assert isinstance(self.dimension, Range)
        low, high, at = self.dimension.low, self.dimension.high, float(value)  # type: ignore[arg-type]
        if self.dimension.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


@dataclass(frozen=True)
class Features:
    """The parameters that differ between the trials of a study."""

    features: tuple[Feature, ...]

    @classmethod
    def of(cls, plan: Plan) -> Features:
        """All that the study searches."""
        students = set(plan.students)
        return cls(
            tuple(
                Feature(name, dimension, _group(name, students))
                for name, dimension in dimensions(plan).items()
                if _varies(dimension)
            )
        )

    @classmethod
    def of_architecture(cls, plan: Plan) -> Features:
        """What decides the latency."""
        flags = {
            f"{student}.{name}"
            for student in plan.students
            for name, param in plan.spaces.students[student].items()
            if param.architecture
        }
        return cls(tuple(f for f in cls.of(plan).features if f.name in flags or f.name == "student"))

    @cached_property
    def owner_K(self) -> npt.NDArray[np.intp]:  # noqa: N802
        """Which parameter each column belongs to."""
        return np.repeat(np.arange(len(self.features)), [f.width for f in self.features])

    def encode(self, configs: Sequence[TrialConfig]) -> FloatArray:
        """(N, K)."""
        rows = [self._row(config.params) for config in configs]
        return np.array(rows, np.float64).reshape(len(rows), len(self.owner_K))

    def _row(self, params: Mapping[str, Scalar]) -> list[float]:
        return [x for feature in self.features for x in feature.columns(params.get(feature.name))]

    def distances(self, X_NK: FloatArray, Y_MK: FloatArray) -> FloatArray:
        """Squared, of each parameter by itself: (F, N, M)."""
        found = np.zeros((len(self.features), len(X_NK), len(Y_MK)))
        for column, owner in enumerate(self.owner_K):
            found[owner] += (X_NK[:, None, column] - Y_MK[None, :, column]) ** 2
        return found


def _group(name: str, students: set[str]) -> str:
    owner = name.partition(".")[0]
    if owner == "student" or owner in students:
        return "student"
    return "scheme" if "." in name or owner == "scheme" else "training"


def _varies(dimension: Dimension) -> bool:
    if isinstance(dimension, Fixed):
        return False
    if isinstance(dimension, Range):
        return dimension.low < dimension.high
    return len(dimension.options) > 1
