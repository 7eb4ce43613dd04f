"""Ask and tell: what Optuna knows of a study. Who runs a trial is not decided here.

Every method may be repeated, also by another process after a crash: a trial is told once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from kdsearch.core.errors import NotFoundError
from kdsearch.core.records import TrialConfig
from kdsearch.search.drawing import Decided, Refusals, Stored, draw, fixed_in, spare
from kdsearch.search.known import Known
from kdsearch.search.plan import ENQUEUED, SAMPLED, First, Origin, Plan, origin_of
from kdsearch.search.samplers import SAMPLERS
from kdsearch.search.samplers.base import SamplerSetup
from kdsearch.store.transactions import UnavailableError, repeatable, without_secrets

METRICS = ("quality", "latency_ms")
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
FIRST = "kdsearch:first"
"""User attribute of an enqueued first trial: what was decided of it."""
ORIGIN = "kdsearch:origin"
"""User attribute of an enqueued trial: who chose it."""
QUEUED = 50
"""First trials that wait in Optuna at a time: it reads each of them again at every question."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial that Optuna proposed."""

    number: int
    optuna_trial_id: int
    config: TrialConfig
    origin: Origin = SAMPLED


class Search:
    """An Optuna study of two objectives: quality up, latency (ms) down."""

    def __init__(self, study: Study, storage: BaseStorage, plan: Plan) -> None:
        self._study = study
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._plan = plan

    @staticmethod
    def free_name(storage: BaseStorage, name: str) -> str:
        """The name, or one like it where Optuna has a study of that name: somebody's own, or a leftover."""
        with _quiet():
            taken = {study.study_name for study in storage.get_all_studies()}
        numbered = (f"{name}-{i}" for i in range(2, len(taken) + 3))
        return next(free for free in (name, *numbered) if free not in taken)

    @classmethod
    def create(cls, storage: BaseStorage, name: str, plan: Plan) -> Search:
        """Create the study, or complete one whose creation was cut off or whose budget was raised.

        The plan's first trials are enqueued, further ones when these were asked for. One process at a time.
        """
        with _quiet():
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                directions=DIRECTIONS,
                pruner=optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            study.set_metric_names(list(METRICS))
            search = cls(study, storage, plan)
            search._enqueue_first()
        return search

    @classmethod
    def open(cls, storage: BaseStorage, name: str, plan: Plan) -> Search:
        """The study of this name; NotFoundError if Optuna has none."""
        with _quiet():
            try:
                study = optuna.load_study(study_name=name, storage=storage, pruner=optuna.pruners.NopPruner())
            except KeyError:
                raise NotFoundError(
                    f"Optuna has no study {name!r} in this database",
                    hint="create it with `kdsearch study create FILE`",
                ) from None
            return cls(study, storage, plan)

    @cached_property
    def _first_trials(self) -> Sequence[First]:
        return self._plan.first_trials()

    def _enqueue_first(self) -> None:
        """The next of the first trials, as many as may wait."""
        trials = self._study.get_trials(deepcopy=False)
        queued = [trial.user_attrs for trial in trials if FIRST in trial.user_attrs]
        if len(queued) >= len(self._first_trials):  # at every question from then on
            return
        had = Counter(_same(_first(attrs)) for attrs in queued)
        room = QUEUED - sum(trial.state == TrialState.WAITING for trial in trials)
        for first in self._first_trials:
            if had[_same(first)]:
                had[_same(first)] -= 1
            elif room > 0:
                attrs = {FIRST: first.params, ORIGIN: first.origin}
                self._study.enqueue_trial(first.params, user_attrs=attrs)
                room -= 1

    def _waiting(self) -> list[FrozenTrial]:
        """What is enqueued: more of the first trials where nothing was."""
        states = (TrialState.WAITING,)
        waiting = self._study.get_trials(deepcopy=False, states=states)
        if not waiting:
            self._enqueue_first()
            waiting = self._study.get_trials(deepcopy=False, states=states)
        return waiting

    # ---------------------------------------------------------------- asking

    def ask(self, known: Known) -> Asked | None:
        """A new trial: the next enqueued one, or what the sampler proposes; None if nothing is left to try.

        A configuration is drawn as a whole, refused where it is known to be vain and drawn again, and only
        then written. One process at a time: whoever asks next must know this trial, or it could be drawn
        twice.
        """
        refusals = Refusals(known, self._plan)
        with _quiet():
            while self._is_anything_left(refusals):
                asked = self._configured(self._study.ask(), refusals, known)
                if asked is not None:
                    return asked
        return None

    def orphans(self, numbers: set[int], known: Known) -> list[Asked]:
        """Trials that run in Optuna and that no lease knows: whoever asked for them died at once.

        ``numbers``: of the trials that are known. A value that was suggested before is suggested again; what
        is missing is drawn as by `ask`, and a trial that can only become a vain one is told as failed.
        """
        with _quiet():
            lost, found = self._lost(numbers), list[Asked]()
            if not lost:  # nearly always
                return found
            refusals = Refusals(known, self._plan)
            for number in lost:
                asked = self._configured(Trial(self._study, self._trial_id(number)), refusals, known)
                found += [asked] if asked is not None else []
        return found

    def enqueue(self, fixed: Mapping[str, Stored]) -> int:
        """An orphan with these values, which the next claim adopts; its number. One process at a time."""
        attrs = {"fixed_params": dict(fixed)}
        asked = create_trial(state=TrialState.RUNNING, system_attrs=attrs, user_attrs={ORIGIN: ENQUEUED})
        with _quiet():
            trial_id = self._storage.create_new_trial(self._study_id, template_trial=asked)
            return self._storage.get_trial(trial_id).number

    def enqueued(self, numbers: set[int]) -> dict[int, dict[str, Stored]]:
        """What was decided of each orphan, by its number; ``numbers``: of the trials that are known."""
        with _quiet():
            lost = [self._storage.get_trial(self._trial_id(number)) for number in self._lost(numbers)]
        return {trial.number: trial.system_attrs.get("fixed_params", {}) for trial in lost}

    def drop_orphans(self, numbers: set[int]) -> None:
        """The study ends without the trials that no lease knows: they are told as failed."""
        with _quiet():
            for number in self._lost(numbers):
                self.tell_failed(number)

    def _lost(self, numbers: set[int]) -> list[int]:
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in running if trial.number not in numbers]

    def _is_anything_left(self, refusals: Refusals) -> bool:
        """Whether the next trial can be anything at all: asked before it is made, so that none is in vain.

        Enqueued trials of which this is not true are dropped: Optuna is told that they failed, which no
        sampler looks at. They were never handed out, so the study has no trial of their number and its
        budget does not count them; being in Optuna still, they are not enqueued again.
        """
        rng = np.random.default_rng(self._plan.spec.search.seed)
        while waiting := self._waiting():
            for trial in waiting:
                if spare(self._plan, refusals.accepts, rng, fixed_in(trial)) is not None:
                    return True
                with suppress(UpdateFinishedTrialError):
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return spare(self._plan, refusals.accepts, rng) is not None

    def _configured(self, trial: Trial, refusals: Refusals, known: Known) -> Asked | None:
        """The trial with all its values written; None, and failed, where they could only be vain ones."""
        trial_id = self._trial_id(trial.number)
        frozen = self._storage.get_trial(trial_id)
        setup = SamplerSetup(plan=self._plan, number=trial.number, known=known)
        sampler = SAMPLERS[self._plan.spec.search.sampler](setup)
        rng, fixed, origin = np.random.default_rng(setup.seed), fixed_in(frozen), _origin(frozen.user_attrs)
        accepts = refusals.is_new if origin == ENQUEUED else refusals.accepts
        config = draw(self._plan, sampler, self._study, frozen, accepts, rng, fixed)
        if config is None:
            self.tell_failed(trial.number)
            return None
        self._study.sampler = Decided(config)
        return Asked(
            number=trial.number,
            optuna_trial_id=trial_id,
            config=self._plan.suggest(trial),
            origin=origin,
        )

    # ---------------------------------------------------------------- telling

    def tell_complete(
        self, number: int, *, quality: float, latency_ms: float, constraints: Mapping[str, float]
    ) -> None:
        """The trial's figures; a constraint holds where its value is at most 0."""
        self._tell(number, TrialState.COMPLETE, values=(quality, latency_ms), constraints=constraints)

    def tell_rejected(self, number: int, constraints: Mapping[str, float]) -> None:
        """The trial was never trained: it cannot fit the budget."""
        self._tell(number, TrialState.PRUNED, constraints=constraints)

    def tell_failed(self, number: int) -> None:
        """The trial broke; samplers leave it out."""
        self._tell(number, TrialState.FAIL)

    @repeatable
    def _tell(
        self,
        number: int,
        state: TrialState,
        *,
        values: Sequence[float] | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        with _quiet(), suppress(UpdateFinishedTrialError):  # another process told the same meanwhile
            trial_id = self._trial_id(number)
            frozen = self._storage.get_trial(trial_id)
            if frozen.state.is_finished():
                return
            trial = Trial(self._study, trial_id)
            for key, value in (constraints or {}).items():
                if key not in frozen.constraints:
                    trial.set_constraint(key, value)
            self._study.tell(number, values, state=state, skip_if_finished=True)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def _first(attrs: Mapping[str, Any]) -> First:
    """What was enqueued; studies of the first version kept no origin beside it."""
    params = attrs[FIRST]
    return First(attrs.get(ORIGIN, origin_of(params["scheme"])), params)


def _origin(attrs: Mapping[str, Any]) -> Origin:
    """Who chose a trial."""
    return _first(attrs).origin if FIRST in attrs else attrs.get(ORIGIN, SAMPLED)


def _same(first: First) -> tuple[Origin, frozenset[tuple[str, object]]]:
    """Equal for equal ones, and may be counted."""
    return first.origin, frozenset(first.params.items())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's notes on progress and on which of its features are experimental.

    Its wrapping of whatever the database refused becomes an error that may be waited out.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    except StorageInternalError as error:
        said = without_secrets(" ".join(str(error.__cause__ or error).split()))
        raise UnavailableError(
            f"Optuna's tables are not available: {said}", hint="kdsearch doctor shows what is reachable"
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)
