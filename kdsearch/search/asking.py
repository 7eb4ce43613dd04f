"""Ask and tell: what Optuna knows of a study. Who runs a trial is not decided here.

Every method may be repeated, also by another process after a crash: a trial is told once.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import Trial, TrialState

from kdsearch.core.errors import NotFoundError
from kdsearch.core.records import TrialConfig
from kdsearch.search.plan import SAMPLED, First, Origin, Plan, origin_of
from kdsearch.search.samplers import SAMPLERS
from kdsearch.store.transactions import UnavailableError, repeatable, without_secrets

METRICS = ("quality", "latency_ms")
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
FIRST = "kdsearch:first"
"""User attribute of an enqueued first trial: what was decided of it."""
ORIGIN = "kdsearch:origin"
"""User attribute of an enqueued first trial: who chose it."""


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

        The plan's first trials are enqueued. One process at a time.
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

    def _enqueue_first(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        queued = [_first(trial.user_attrs) for trial in trials if FIRST in trial.user_attrs]
        for first in self._plan.first_trials():
            if first in queued:
                queued.remove(first)
            else:
                attrs = {FIRST: first.params, ORIGIN: first.origin}
                self._study.enqueue_trial(first.params, user_attrs=attrs)

    # ---------------------------------------------------------------- asking

    def ask(self) -> Asked:
        """A new trial: the next enqueued one, or what the sampler proposes."""
        with _quiet():
            trial = self._study.ask()
        return self._configured(trial)

    def orphans(self, known: set[int]) -> list[Asked]:
        """Trials that run in Optuna and that no lease knows: whoever asked for them died at once.

        A value that was suggested before is suggested again.
        """
        with _quiet():
            running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        lost = [trial.number for trial in running if trial.number not in known]
        return [self._configured(self._attached(number)) for number in lost]

    def _attached(self, number: int) -> Trial:
        with _quiet():
            return Trial(self._study, self._trial_id(number))

    def _configured(self, trial: Trial) -> Asked:
        # Equal seeds in two processes would propose the same; one seed per trial number never does.
        spec = self._plan.spec.search
        self._study.sampler = SAMPLERS[spec.sampler](_seed(spec.seed, trial.number))
        with _quiet():
            config = self._plan.suggest(trial)
            attrs = trial.user_attrs
            return Asked(
                number=trial.number,
                optuna_trial_id=self._trial_id(trial.number),
                config=config,
                origin=_first(attrs).origin if FIRST in attrs else SAMPLED,
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


def _seed(seed: int, number: int) -> int:
    """A seed of its own for each trial of a study."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4])


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
