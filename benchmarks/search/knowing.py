"""The sampler that knows latencies beforehand, confined to the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.search.askers import OptunaAsker
from kdsearch.core.records import Tried
from kdsearch.search.drawing import by_chance
from kdsearch.search.known import Known

NUM_STARTUP = 10
"""Trials that Optuna's default proposes first: its own random ones."""
NUM_DRAWS = 512
"""Candidates from the whole space."""


@dataclass
class KnowingAsker:
    """Proposes by expected hypervolume improvement at known latency; at first Optuna's default does."""

    fallback: OptunaAsker
    seed: int
    snapped: bool

    def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
        """Among the table's rows, or among draws of the whole space and then the nearest row."""
        if number < NUM_STARTUP:
            return self.fallback.ask(number, known, untried)
        raise NotImplementedError

    def begin(self, row: int, number: int) -> None:
        """A trial runs that somebody else chose."""
        self.fallback.begin(row, number)

    def tell(self, trial: Tried) -> None:
        """What Optuna is told of it."""
        self.fallback.tell(trial)
