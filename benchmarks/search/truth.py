"""What is true of a table: each configuration's worth, the best front, and how much of it a search found.

The worth of a configuration is its final quality, mean over the seeds of the table; a training that broke
off is worth the floor. Hypervolume is taken over (quality, log latency) between the floor and the slowest
configuration, so that a factor of two counts alike among fast and among slow students.

Letters: C configurations, S seeds, E epochs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from benchmarks.search.table import FloatArray, Table
from kdsearch.core.pareto import hypervolume, staircase


class Curve(NamedTuple):
    """One training of one configuration as it was recorded."""

    qualities_E: FloatArray
    """NaN where the epoch is not scored, or was never reached."""
    seconds_E: FloatArray
    """Never NaN: an epoch in which a training broke off took as long as the others."""
    broke_in: int | None
    """The epoch (from 1) that was never finished; None if all were."""


@dataclass(frozen=True)
class Truth:
    """A table, and what it makes of any set of its configurations."""

    table: Table
    floor: float
    """A student of this quality is worth nothing."""

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Configurations that can be played: those with a latency."""
        return tuple(int(c) for c in np.flatnonzero(np.isfinite(self.table.p90_ms_C)))

    @cached_property
    def worth_C(self) -> FloatArray:  # noqa: N802
        """Mean final quality over the seeds, at least the floor."""
        final_CS = np.where(self.table.diverged_CS, np.nan, self.table.final_quality_CS)
        return np.asarray(np.maximum(np.where(np.isnan(final_CS), self.floor, final_CS), self.floor).mean(1))

    @cached_property
    def log_ms_C(self) -> FloatArray:  # noqa: N802
        """Of the p90 latency."""
        return np.asarray(np.log(self.table.p90_ms_C))

    @cached_property
    def best(self) -> float:
        """Hypervolume of the whole table."""
        return self._area(self.rows)

    def share(self, rows: Iterable[int]) -> float:
        """Of the whole table's hypervolume, what these configurations have."""
        return self._area(rows) / self.best

    def adds(self, row: int, found: Iterable[int]) -> bool:
        """Whether a configuration would be on the front of what was found."""
        points = [(float(self.worth_C[c]), float(self.log_ms_C[c])) for c in found]
        return float(self.worth_C[row]) > max(self.floor, staircase(points, float(self.log_ms_C[row])))

    def _area(self, rows: Iterable[int]) -> float:
        points = [(float(self.worth_C[c]), float(self.log_ms_C[c])) for c in rows]
        slowest = float(np.nanmax(self.log_ms_C))
        return hypervolume(points, reference=(self.floor, slowest))

    def curve(self, row: int, seed: int) -> Curve:
        """The training of a configuration with one of the table's seeds, by its place."""
        table = self.table
        seconds_E = table.cpu_seconds_CSE[row, seed]
        finished = int(np.isfinite(seconds_E).sum())
        usual = float(np.nanmean(table.cpu_seconds_CSE[row] if finished else table.cpu_seconds_CSE))
        broke_in = None if finished == table.num_epochs else finished + 1
        return Curve(table.quality_CSE[row, seed], np.where(np.isnan(seconds_E), usual, seconds_E), broke_in)


def floor_of(table: Table) -> float:
    """The quality of always saying one label, where all are equally frequent, as in the tables' data."""
    return 1 / int(table.facts["num_labels"])


def shuffled(table: Table, rng: np.random.Generator) -> Table:
    """A table in which a configuration says nothing of its quality: trainings change places."""
    order = rng.permutation(len(table.configs))
    return replace(
        table,
        quality_CSE=table.quality_CSE[order],
        nll_CSE=table.nll_CSE[order],
        seconds_CSE=table.seconds_CSE[order],
        cpu_seconds_CSE=table.cpu_seconds_CSE[order],
    )
