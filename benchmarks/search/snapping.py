"""From any configuration of a space to the nearest one of a table that is still untried.

Nearest of the same architecture and scheme, so that a proposal keeps the latency it was made for; else of
the same student and scheme, else of the same student, else of any. The distance is the root of the summed
squares over parameters, each scaled to [0, 1] over its range (logarithmic where the range is); ordered
choices count by rank, others as equal or not, and a parameter that only one of the two has as unequal.

A table has few rows of each architecture and scheme, a space as many as one likes. A sampler that insists on
one of which no row is left would be snapped to something else again and again, without ever learning of what
it asked for; so it is told, as a study tells it of what was tried already, and proposes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from benchmarks.search.design import Architecture, architecture_of
from benchmarks.search.table import FloatArray
from kdsearch.core.records import TrialConfig
from kdsearch.core.space import encode
from kdsearch.search.plan import Plan

Value = bool | int | float | str
Cell = tuple[Architecture, str]
"""An architecture and a scheme."""


@dataclass(frozen=True)
class Row:
    """A configuration of the table as Optuna keeps it."""

    params: Mapping[str, Value]
    distributions: Mapping[str, BaseDistribution]


def as_row(config: TrialConfig, plan: Plan) -> Row:
    """Its searched parameters and what they were drawn from."""
    fixed = FixedTrial({name: encode(value) for name, value in config.params.items()})
    plan.suggest(fixed)
    return Row(fixed.params, fixed.distributions)


@dataclass(frozen=True)
class Snapper:
    """Knows every row of a table, encoded once."""

    configs: tuple[TrialConfig, ...]
    plan: Plan

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """By place in the table."""
        return tuple(as_row(config, self.plan) for config in self.configs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every parameter that some row has, but the student and the scheme."""
        found = {name: None for row in self.rows for name in row.params}
        return tuple(name for name in found if name not in ("student", "scheme"))

    @cached_property
    def points_CP(self) -> FloatArray:  # noqa: N802
        """Each row's parameters on their scales; NaN where it has none of that name."""
        return np.array([self._point(row.params, row.distributions) for row in self.rows])

    @cached_property
    def _categorical_P(self) -> npt.NDArray[np.bool_]:  # noqa: N802
        known = {name: found for row in self.rows for name, found in row.distributions.items()}
        return np.array([not _ordered(known[name]) for name in self.names])

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Of each row."""
        return tuple(cell(config) for config in self.configs)

    def left(self, untried: Sequence[int]) -> frozenset[Cell]:
        """The architectures and schemes of which there is an untried row."""
        return frozenset(self.cells[row] for row in untried)

    def nearest(self, config: TrialConfig, untried: Sequence[int]) -> int:
        """The place of the untried row nearest to a configuration of the space."""
        rows = self._alike(config, untried)
        own = as_row(config, self.plan)
        gaps_RP = np.abs(self.points_CP[rows] - self._point(own.params, own.distributions))
        absent = np.isnan(self.points_CP[rows]) != np.isnan(self._point(own.params, own.distributions))
        unequal = self._categorical_P & (gaps_RP > 0)
        gaps_RP = np.where(absent | unequal, 1.0, np.nan_to_num(gaps_RP))
        return rows[int((gaps_RP**2).sum(1).argmin())]

    def _alike(self, config: TrialConfig, untried: Sequence[int]) -> list[int]:
        student = [c for c in untried if self.configs[c].student == config.student]
        both = [c for c in student if self.configs[c].scheme == config.scheme]
        exact = [c for c in both if self.cells[c] == cell(config)]
        return exact or both or student or list(untried)

    def _point(
        self, params: Mapping[str, Value], distributions: Mapping[str, BaseDistribution]
    ) -> FloatArray:
        return np.array(
            [_scaled(params[n], distributions[n]) if n in params else np.nan for n in self.names], np.float64
        )


def cell(config: TrialConfig) -> Cell:
    """Its architecture and scheme."""
    return architecture_of(config), config.scheme


def _ordered(distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return all(isinstance(c, int | float) and not isinstance(c, bool) for c in distribution.choices)
    return True


def _scaled(value: Value, distribution: BaseDistribution) -> float:
    """In [0, 1]; the place among its choices for a category."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    ends = np.array([distribution.low, float(value), distribution.high], np.float64)
    low, here, high = np.log(ends) if distribution.log else ends
    return float((here - low) / (high - low)) if high > low else 0.0
