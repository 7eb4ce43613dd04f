"""Claiming: what a free worker does next, decided in one transaction at a time per study.

In this order: what waits (put away, promoted, proposed), a paused trial that the pruner calls back, a new
trial within the budget, further seeds of the finalists, the end. Counting and handing out happen under the
study's advisory lock, so that N workers never overshoot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import structlog
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.core.errors import NotFoundError, StorageError, TooManyFailuresError
from kdsearch.core.records import Decision, Tried
from kdsearch.search import ending
from kdsearch.search.asking import Asked, Search
from kdsearch.search.known import Known
from kdsearch.search.pruners.base import Situation
from kdsearch.store import leases, studies
from kdsearch.store.leases import Lease
from kdsearch.store.studies import BudgetState
from kdsearch.store.transactions import repeatable
from kdsearch.worker import closing, rungs
from kdsearch.worker.context import Pause
from kdsearch.worker.material import Material

log = structlog.get_logger()
Claim: TypeAlias = Lease | Literal["wait", "close", "done", "gone"]
"""``close``: nothing is left but to close the study; ``gone``: the study was deleted."""
TIME_AGAIN = Decision(action="promote", rule="budget", reason="the study has hours again")
MANY = 1000
"""Trials of a study from which on asking takes so long that one proposal is kept ready."""


class Claims:
    """Claims for one worker."""

    def __init__(self, material: Material, search: Search, *, can_measure: bool) -> None:
        self.material, self.context, self.search = material, material.context, search
        self.can_measure = can_measure
        self._engine, self._study_id = self.context.store.engine, self.context.study.id
        self._pause, self._said = Pause(), ""

    @repeatable  # a broken turn is rolled back; what was asked for meanwhile is adopted by the next one
    def take(self, *, conclude: bool = False) -> Claim:
        """The next trial; with `conclude` the study is closed in the same turn where nothing is left to do.

        Raises TooManyFailuresError when the budget of failures is spent.
        """
        if (ended := self._ended_or_paused()) is not None:
            return ended
        with leases.study_turn(self._engine, self._study_id) as conn:
            if (ended := self._ended_or_paused()) is not None:  # while this worker waited for its turn
                return ended
            leases.sweep(conn, self._study_id)
            budget = studies.budget_state(conn, self._study_id)
            if budget.num_failed <= budget.max_failed:
                claim = self._next(conn, budget)
                return self._close(conn) if claim == "close" and conclude else claim
        # Out here, so that what was swept stays swept.
        name = self.context.study.name
        raise TooManyFailuresError(
            f"{budget.num_failed} trials of study {name!r} failed, its budget allows {budget.max_failed}",
            hint=f"kdsearch trial list {name} --state failed",
        )

    def _ended_or_paused(self) -> Literal["wait", "done", "gone"] | None:
        """What there is to do without asking for more; None where the study is open."""
        try:
            found = studies.find_study(self._engine, self.context.study.name)
        except NotFoundError:
            return "gone"
        if found.id != self._study_id:
            return "gone"
        if self._pause.is_on(found):
            return "wait"
        return "done" if found.state == "done" else None

    def _next(self, conn: Connection, budget: BudgetState) -> Claim:
        if budget.out_of_time:  # a measuring machine may never come, and no hour is left to wait for one
            studies.stop_unmeasured(conn, self._study_id)
        waiting = self._waiting(conn)
        if waiting is not None:
            return waiting
        new = self._further(conn, budget)
        if new is not None:
            return new
        left = studies.budget_state(conn, self._study_id)
        if left.num_open or left.num_open_repeats:
            return "wait"
        return self._repeat(conn) or "close"

    def _close(self, conn: Connection) -> Claim:
        stopped = leases.close_study(conn, self._study_id)
        self.search.drop_orphans(leases.known_numbers(conn, self._study_id))
        studies.set_state(conn, self._study_id, "done")
        log.info("the study is done", why=self._said, stopped=stopped)
        return "done"

    def _waiting(self, conn: Connection) -> Lease | None:
        options = self.context.options
        return leases.take_waiting(
            conn, self._study_id, self.context.worker_id, options.lease_s, can_measure=self.can_measure
        )

    # ---------------------------------------------------------------- promotions and new trials

    def _further(self, conn: Connection, budget: BudgetState) -> Claim | None:
        """A paused trial called back or a new one; None where the budget or the plateau allows neither."""
        why = ending.spent(budget, self.context.spec)
        if why and (budget.out_of_time or not budget.num_paused):
            return self._nothing_new(why)
        tried = self._history(conn)
        if not why and (found := self._orphan(conn, tried)) is not None:
            return self._begun(conn, found)
        if flat := ending.settled(self.context.spec, tried, self.material.quality_floor):
            return self._nothing_new(flat)
        if budget.num_paused and (promoted := self._promoted(conn, budget, tried)) is not None:
            return promoted
        if why:
            return self._nothing_new(why)
        if not self.can_measure and studies.awaits_measuring(conn, self._study_id):
            return "wait"
        asked = self.search.ask(self._known(tried))
        return self._nothing_new(ending.EXHAUSTED) if asked is None else self._begun(conn, asked)

    def _nothing_new(self, why: str) -> Claim | None:
        if why != self._said:
            log.info("no further trial is begun", why=why)
        self._said = why
        return None

    def _history(self, conn: Connection) -> list[Tried]:
        """Every trial so far, with learning curves where somebody may have stopped one early."""
        return self.context.history.read(conn)

    def _promoted(self, conn: Connection, budget: BudgetState, tried: Sequence[Tried]) -> Claim | None:
        situation: Situation = rungs.situation(self.material, tried)
        by_number = {trial.number: trial for trial in tried}
        by_time = [(number, TIME_AGAIN) for number in studies.paused_for_time(conn, self._study_id)]
        for number, decision in (*by_time, *rungs.pruner(self.context.spec).promotions(situation)):
            trial = by_number[number]
            rest = trial.config.epochs - max(trial.qualities, default=0)
            if ending.room_for(budget, rest) and leases.promote(conn, self._study_id, number, decision):
                return self._waiting(conn) or "wait"  # its epochs are promised: no new trial in this turn
        return None

    def _known(self, tried: Sequence[Tried]) -> Known:
        return Known(
            tried=tried,
            latency_ms=self.material.figures.question(),
            quality_floor=self.material.quality_floor,
        )

    def _orphan(self, conn: Connection, tried: Sequence[Tried]) -> Asked | None:
        """A trial that a person enqueued, or that somebody asked for and never leased."""
        orphans = self.search.orphans({trial.number for trial in tried}, self._known(tried))
        return orphans[0] if orphans else None

    def _begun(self, conn: Connection, asked: Asked) -> Lease:
        return leases.insert_running(
            conn,
            self._study_id,
            number=asked.number,
            optuna_trial_id=asked.optuna_trial_id,
            config=asked.config,
            architecture_key=self.material.architecture(asked.config),
            worker_id=self.context.worker_id,
            ttl_s=self.context.options.lease_s,
            origin=asked.origin,
        )

    def leave_one_ready(self) -> None:
        """In a study of many trials: a proposal for whoever comes next, so that nobody waits for the asking.

        In small studies it would only be older than it needs to be.
        """
        try:
            with leases.study_turn(self._engine, self._study_id) as conn:
                budget = studies.budget_state(conn, self._study_id)
                if budget.num_trials >= MANY and not ending.spent(budget, self.context.spec):
                    self._make_ready(conn)
        except (StorageError, SQLAlchemyError) as error:  # nobody needs it
            log.warning("no proposal is kept ready", error=type(error).__name__)

    def _make_ready(self, conn: Connection) -> None:
        tried = self._history(conn)
        if any(trial.state == "waiting" for trial in tried):
            return
        if ending.settled(self.context.spec, tried, self.material.quality_floor):
            return
        asked = self._orphan(conn, tried) or self.search.ask(self._known(tried))
        if asked is not None:
            leases.insert_ready(
                conn,
                self._study_id,
                number=asked.number,
                optuna_trial_id=asked.optuna_trial_id,
                config=asked.config,
                architecture_key=self.material.architecture(asked.config),
                origin=asked.origin,
            )

    # ---------------------------------------------------------------- finalists

    def _repeat(self, conn: Connection) -> Lease | None:
        """A further seed of a finalist, when the search has ended; None where none is left to train."""
        spec = self.context.spec
        if spec.finalists is None:
            return None
        wanted = closing.wanted_seeds(spec, self._history(conn), self.material.quality_floor)
        return self._waiting(conn) if leases.insert_repeats(conn, self._study_id, wanted) else None
