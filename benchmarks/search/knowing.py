"""The sampler that knows latencies beforehand, confined to the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.search.askers import OptunaAsker
from benchmarks.search.snapping import Snapper, cell
from benchmarks.search.table import FloatArray
from kdsearch.core.records import TrialConfig, Tried
from kdsearch.search.known import Known
from kdsearch.search.proposing import NUM_STARTUP_TRIALS, Outlook, best, look_around
from kdsearch.search.surrogate import MakeModel


class Confined(Outlook):
    """Refuses that of which the table has no row left."""

    def __init__(self, known: Known, snapper: Snapper, untried: Sequence[int], make_model: MakeModel) -> None:
        super().__init__(known, snapper.plan, make_model)
        self._left = snapper.left(untried)

    def scores(self, configs: Sequence[TrialConfig]) -> FloatArray:
        """Minus infinity for what is refused."""
        there = np.array([cell(config) in self._left for config in configs], bool)
        return np.where(there, super().scores(configs), -np.inf)


@dataclass
class KnowingAsker:
    """As `search.samplers.known_latency` proposes; at first Optuna's default does, as there."""

    fallback: OptunaAsker
    seed: int
    snapped: bool
    make_model: MakeModel

    def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
        """Of the table's rows the best, or what is proposed for the whole space and then the nearest row."""
        snapper = self.fallback.snapper
        outlook = Confined(known, snapper, untried, self.make_model)
        if outlook.num_observed < NUM_STARTUP_TRIALS:
            return self.fallback.ask(number, known, untried)
        rng = np.random.default_rng([self.seed, 6, number])
        proposed = look_around(outlook, rng) if self.snapped else self._of_rows(outlook, untried, rng)
        if proposed is None:
            return self.fallback.ask(number, known, untried)
        row = snapper.nearest(proposed, untried)
        self.begin(row, number)
        return row

    def _of_rows(
        self, outlook: Outlook, untried: Sequence[int], rng: np.random.Generator
    ) -> TrialConfig | None:
        configs = [self.fallback.snapper.configs[row] for row in untried]
        return best(configs, outlook.scores(configs), rng)

    def begin(self, row: int, number: int) -> None:
        """A trial runs that Optuna's default did not choose."""
        self.fallback.begin(row, number)

    def tell(self, trial: Tried) -> None:
        """What Optuna is told of it."""
        self.fallback.tell(trial)
