"""Samplers, confined to the rows of a table.

A sampler of Optuna's proposes in the whole space, and again where the table has no such row left, as often
as in a study; its proposal is snapped to the nearest untried row, and the row's own parameters are what
Optuna is told: the proposals themselves are told as failed, which samplers leave out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from benchmarks.search.simulator import Asker
from benchmarks.search.snapping import Snapper, cell
from kdsearch.core.records import TrialConfig, Tried
from kdsearch.search.drawing import SAMPLER_DRAWS, by_chance
from kdsearch.search.known import Known

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
ENDED = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass
class OptunaAsker:
    """One of Optuna's samplers and the study that it looks at."""

    sampler: BaseSampler
    snapper: Snapper
    log_latency: bool = False
    """Whether Optuna is told the logarithm."""
    numbers: dict[int, int] = field(default_factory=dict)
    """Of a trial -> Optuna's own number of it."""

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study = optuna.create_study(directions=DIRECTIONS, sampler=self.sampler)

    def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
        """What the sampler proposes, snapped."""
        left = self.snapper.left(untried)
        for _ in range(SAMPLER_DRAWS):
            proposed, attrs = self._proposed()
            if cell(proposed) in left:
                break
        row = self.snapper.nearest(proposed, untried)
        self.begin(row, number, attrs)
        return row

    def _proposed(self) -> tuple[TrialConfig, dict[str, object]]:
        """A proposal, told as failed: its row takes its place, with what NSGA-II finds its generation by."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which parts of Optuna are experimental
            trial = self.study.ask()
            proposed = self.snapper.plan.suggest(trial)
        attrs = self.study._storage.get_trial_system_attrs(trial._trial_id)
        self.study.tell(trial, state=TrialState.FAIL)
        return proposed, attrs

    def begin(self, row: int, number: int, attrs: dict[str, object] | None = None) -> None:
        """A trial runs, whoever chose it."""
        own = self.snapper.rows[row]
        self.numbers[number] = len(self.study.get_trials(deepcopy=False))
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=dict(own.params),
                distributions=dict(own.distributions),
                system_attrs=attrs,
            )
        )

    def tell(self, trial: Tried) -> None:
        """As kdsearch tells Optuna: both objectives of what was trained to its end."""
        values = None
        if trial.state == "complete":
            assert trial.quality is not None and trial.latency_ms is not None
            latency = float(np.log(trial.latency_ms)) if self.log_latency else trial.latency_ms
            values = (trial.quality, latency)
        self.study.tell(self.numbers[trial.number], values, state=ENDED[trial.state])


class Beginner(Asker, Protocol):
    """An asker that can be told of a trial which it did not choose."""

    def begin(self, row: int, number: int) -> None:
        """The trial runs."""
        ...


@dataclass
class Stratified:
    """A study's first trials, one per scheme and student, before an asker has its say."""

    asker: Beginner
    snapper: Snapper
    seed: int

    def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
        """A first trial, else the asker's."""
        pairs = self._pairs
        if number >= len(pairs):
            return self.asker.ask(number, known, untried)
        rng = np.random.default_rng([self.seed, 2, number])
        row = self.snapper.nearest(by_chance(self.snapper.plan, rng, pairs[number]), untried)
        self.asker.begin(row, number)
        return row

    @property
    def _pairs(self) -> list[dict[str, str]]:
        plan = self.snapper.plan
        return [
            {"student": student, "scheme": scheme} for scheme in plan.schemes for student in plan.students
        ]

    def tell(self, trial: Tried) -> None:
        """Handed on."""
        self.asker.tell(trial)
