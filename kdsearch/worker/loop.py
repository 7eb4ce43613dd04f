"""The worker: prepare or wait, then claim, run and tell, until the study's budget is spent.

Who runs what is decided here and nowhere else: one transaction per study holds the advisory lock,
sweeps, hands out what waits, adopts what was asked for and never leased, and asks for a new trial
only while the budget allows it. So N workers never overshoot.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeAlias

import structlog
import torch
from sqlalchemy.engine import Connection

from kdsearch.core.errors import (
    ArtifactError,
    KdsearchError,
    LeaseLostError,
    StorageError,
    TooManyFailuresError,
    UsageError,
)
from kdsearch.core.records import Failure
from kdsearch.core.studyfile import spec_from_json
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.profile import hardware_profile
from kdsearch.search.asking import Asked, Search
from kdsearch.store import leases, studies, workers
from kdsearch.store.connect import Store
from kdsearch.store.leases import Lease
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.store.studies import BudgetState
from kdsearch.store.transactions import repeatable
from kdsearch.worker.context import Progress, Stopped, WorkerContext, WorkerOptions
from kdsearch.worker.material import Material
from kdsearch.worker.measuring import can_measure
from kdsearch.worker.prepare import prepare
from kdsearch.worker.pulse import Pulse
from kdsearch.worker.trial import run_trial

log = structlog.get_logger()
Outcome: TypeAlias = Literal["done", "stopped"]
Claim: TypeAlias = Lease | Literal["wait", "done"]


def work(
    store: Store, study_name: str, *, options: WorkerOptions, should_stop: Callable[[], bool]
) -> Outcome:
    """Work on a study until it is done or `should_stop()` turns true.

    Raises NotFoundError for an unknown study, TooManyFailuresError when its budget of failures is
    spent, and whatever made the preparation fail.
    """
    context = open_context(store, study_name, options, should_stop)
    torch.set_num_threads(options.threads)
    workers.register(store.engine, _self_description(context))
    pulse = Pulse(context)
    try:
        with pulse.beating():
            prepared = _prepared(context, pulse)
            return "stopped" if prepared is None else _Worker(context, prepared, pulse).run()
    finally:
        with suppress(StorageError):  # the outcome, or the error under way, says more
            workers.retire(store.engine, context.worker_id)


def open_context(
    store: Store, study_name: str, options: WorkerOptions, should_stop: Callable[[], bool]
) -> WorkerContext:
    """Look the study up and give this worker a name."""
    study = studies.find_study(store.engine, study_name)
    store = store.of_study(study.artifacts_url)
    progress = Progress()
    should_stop = progress.asking(should_stop)
    return WorkerContext(
        store=store,
        study=study,
        spec=spec_from_json(study.spec_json),
        inputs=Inputs.load(store.blobs, study.dataset_sha256),
        options=options,
        worker_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
        lock=_host_lock(options, should_stop),
        should_stop=should_stop,
        progress=progress,
    )


def _host_lock(options: WorkerOptions, should_stop: Callable[[], bool]) -> HostLock:
    def interrupt() -> None:
        if should_stop():
            raise Stopped

    def settle() -> None:
        if options.device.startswith("cuda"):  # steps are queued there: they would run into the measuring
            torch.cuda.synchronize(options.device)

    return HostLock(options.lock_folder, interrupt=interrupt, settle=settle)


def _self_description(context: WorkerContext) -> workers.NewWorker:
    return workers.NewWorker(
        id=context.worker_id,
        study_id=context.study.id,
        host=socket.gethostname(),
        pid=os.getpid(),
        device=context.options.device,
        profile_key=hardware_profile(context.spec.latency).key,
    )


# -------------------------------------------------------------------- preparation


def _prepared(context: WorkerContext, pulse: Pulse) -> Prepared | None:
    """What the preparation left, made by this worker or awaited; None when it is to stop."""
    engine = context.store.engine
    while not context.should_stop():
        row = leases.preparation(engine, context.study.id)
        if row.state == "failed":
            raise KdsearchError(
                f"study {context.study.name!r} could not be prepared: {row.error}",
                hint="mend the cause, then `kdsearch run FILE` again",
            )
        if row.state == "done" and row.prepared is not None:
            return Prepared.load(context.store.blobs, row.prepared)
        _prepare_or_wait(context, pulse)
    return None


def _prepare_or_wait(context: WorkerContext, pulse: Pulse) -> None:
    engine, ttl = context.store.engine, context.options.lease_s
    if context.spec.latency.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"study {context.study.name!r} measures latency on a GPU and is not prepared yet: "
            "torch sees no GPU here",
            hint="start a worker on a machine that has one, or `latency: {device: cpu}` in the study file",
        )
    lease = leases.take_preparation(engine, context.study.id, context.worker_id, ttl)
    if lease is None:
        time.sleep(context.options.poll_s)
        return
    try:
        with pulse.holding(lambda: leases.renew_preparation(engine, lease, ttl)):
            prepare(context, lease, pulse)
    except Stopped:
        with suppress(LeaseLostError):
            leases.give_back_preparation(engine, lease)
    except LeaseLostError:
        log.warning("another worker prepares the study now")
    except ArtifactError:  # not the study's fault: another worker may reach them, or this one later
        with suppress(LeaseLostError):
            leases.give_back_preparation(engine, lease)
        raise
    except StorageError:  # the lease runs out, and somebody goes on from what is stored
        raise
    except Exception as error:
        with suppress(LeaseLostError):
            leases.fail_preparation(engine, lease, f"{type(error).__name__}: {error}")
        raise


# -------------------------------------------------------------------- trials


class _Worker:
    """Claims and runs trials of one prepared study."""

    def __init__(self, context: WorkerContext, prepared: Prepared, pulse: Pulse) -> None:
        self.context, self.pulse = context, pulse
        self.engine = context.store.engine
        self.material = Material(context, prepared)
        self.can_measure = can_measure(context, prepared)
        storage = optuna_storage(context.store)
        self.search = Search.open(storage, context.study.optuna_name, context.plan)
        if not self.can_measure:
            log.warning("this machine is not the study's measuring profile: it trains, it never measures")

    def run(self) -> Outcome:
        while not self.context.should_stop():
            self._tell_what_is_untold()
            claim = self._claim()
            if claim == "done":
                self._tell_what_is_untold()  # claiming may have given up on the last one
                return "done"
            if isinstance(claim, Lease):
                self._run(claim)
            else:
                time.sleep(self.context.options.poll_s)
        return "stopped"

    def _run(self, lease: Lease) -> None:
        renew = lambda: leases.renew(self.engine, lease, self.context.options.lease_s)  # noqa: E731
        try:
            with self.pulse.holding(renew):
                run_trial(self.material, lease, self.pulse)
        except LeaseLostError:
            log.warning("another worker has this trial now", trial=lease.number)
        except StorageError:  # not the trial's fault: somebody goes on when its lease has run out
            raise
        except Exception as error:  # the trial boundary: whatever it was is the trial's failure
            self._record_failure(lease, error)
            if isinstance(error, torch.AcceleratorError):  # the device is lost to this process
                raise

    def _record_failure(self, lease: Lease, error: Exception) -> None:
        kind: Literal["out_of_memory", "exception"] = (
            "out_of_memory" if isinstance(error, torch.OutOfMemoryError) else "exception"
        )
        failure = Failure(
            kind=kind, message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()
        )
        log.error("trial failed", trial=lease.number, error=failure.message)
        try:
            leases.finish_failed(self.engine, lease, failure)
        except LeaseLostError:
            log.warning("another worker has this trial now", trial=lease.number)

    def _tell_what_is_untold(self) -> None:
        """Tell Optuna what is on record; a crash between the two heals here, in any worker."""
        objective = self.context.spec.objectives.latency
        for row in leases.untold(self.engine, self.context.study.id):
            if row.state == "complete" and row.quality is not None and row.latency is not None:
                self.search.tell_complete(
                    row.number,
                    quality=row.quality,
                    latency_ms=row.latency.at(objective),
                    constraints=row.constraints,
                )
            elif row.state == "rejected":
                self.search.tell_rejected(row.number, row.constraints)
            else:
                self.search.tell_failed(row.number)
            leases.mark_told(self.engine, self.context.study.id, row.number)

    # ---------------------------------------------------------------- claiming

    @repeatable  # a broken turn is rolled back; what was asked for meanwhile is adopted by the next one
    def _claim(self) -> Claim:
        study_id = self.context.study.id
        with leases.study_turn(self.engine, study_id) as conn:
            leases.sweep(conn, study_id)
            budget = studies.budget_state(conn, study_id)
            if budget.num_failed <= budget.max_failed:
                return self._next(conn, budget)
        # Out here, so that what was swept stays swept.
        raise TooManyFailuresError(
            f"{budget.num_failed} trials of study {self.context.study.name!r} failed, "
            f"its budget allows {budget.max_failed}",
            hint=f"kdsearch trial list {self.context.study.name} --state failed",
        )

    def _next(self, conn: Connection, budget: BudgetState) -> Claim:
        """What waits, else a new trial within the budget, else the end."""
        study_id, me = self.context.study.id, self.context.worker_id
        waiting = leases.take_waiting(
            conn, study_id, me, self.context.options.lease_s, can_measure=self.can_measure
        )
        if waiting is not None:
            return waiting
        if budget.num_trials < budget.max_trials and not budget.out_of_time:
            return self._new_trial(conn)
        left = budget.num_open
        if budget.out_of_time:  # a measuring machine may never come, and no hour is left to wait for one
            left -= leases.stop_unmeasured(conn, study_id)
        if left:
            return "wait"
        studies.set_state(conn, study_id, "done")
        return "done"

    def _new_trial(self, conn: Connection) -> Claim:
        """Adopt a trial that somebody asked for and never leased, else ask."""
        study_id = self.context.study.id
        if not self.can_measure and studies.awaits_measuring(conn, study_id):
            return "wait"
        orphans = self.search.orphans(leases.known_numbers(conn, study_id))
        asked: Asked = orphans[0] if orphans else self.search.ask()
        return leases.insert_running(
            conn,
            study_id,
            number=asked.number,
            optuna_trial_id=asked.optuna_trial_id,
            config=asked.config,
            architecture_key=self.material.architecture(asked.config),
            worker_id=self.context.worker_id,
            ttl_s=self.context.options.lease_s,
            origin=asked.origin,
        )
