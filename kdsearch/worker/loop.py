"""The worker: prepare or wait, then claim, run and tell, until the study is done or somebody says stop.

What is claimed is decided in `worker.claim`, what becomes of a trial in `worker.trial`; here they are strung
together, and Optuna is told what is on record.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeAlias

import structlog
import torch

from kdsearch.core.errors import KdsearchError, LeaseLostError, NotFoundError, StorageError, UsageError
from kdsearch.core.studyfile import spec_from_json
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.profile import hardware_profile
from kdsearch.search.asking import Search
from kdsearch.store import preparations, reads, studies, telling, workers
from kdsearch.store.connect import Store
from kdsearch.store.leases import Lease
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.worker import closing, rungs
from kdsearch.worker.claim import Claim, Claims
from kdsearch.worker.context import Pause, Progress, Stopped, WorkerContext, WorkerOptions
from kdsearch.worker.delivery import Delivery
from kdsearch.worker.importance import Importances
from kdsearch.worker.material import Material
from kdsearch.worker.measuring import can_measure
from kdsearch.worker.prepare import prepare
from kdsearch.worker.pulse import Pulse
from kdsearch.worker.requests import Requests
from kdsearch.worker.trial import run_trial

log = structlog.get_logger()
Outcome: TypeAlias = Literal["done", "stopped", "deleted"]


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
    pulse, delivery = Pulse(context), Delivery(context)
    requests = Requests(context, pulse, delivery)
    try:
        with pulse.beating(), delivery.delivering():
            prepared = _prepared(context, pulse, delivery, requests)
            if not isinstance(prepared, Prepared):
                return prepared
            return _Worker(context, prepared, pulse, delivery, requests).run()
    finally:
        with suppress(StorageError):  # the outcome, or the error under way, says more
            workers.retire(store.engine, context.worker_id)


def open_context(
    store: Store, study_name: str, options: WorkerOptions, should_stop: Callable[[], bool]
) -> WorkerContext:
    """Look the study up and give this worker a name."""
    study = studies.find_study(store.engine, study_name)
    store = store.of_study(study.artifacts_url)
    progress, drained = Progress(), threading.Event()
    should_stop = _either(progress.asking(should_stop), drained)
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
        drained=drained,
    )


def _either(should_stop: Callable[[], bool], drained: threading.Event) -> Callable[[], bool]:
    return lambda: should_stop() or drained.is_set()


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


def _prepared(
    context: WorkerContext, pulse: Pulse, delivery: Delivery, requests: Requests
) -> Prepared | Outcome:
    """What the preparation left, made by this worker or awaited; else how this worker ends."""
    pause = Pause()
    with suppress(Stopped):
        while not context.should_stop():
            requests.carry_out()
            prepared = delivery.patiently(lambda: _found_or_prepared(context, pulse, delivery, pause))
            if prepared is not None:
                return prepared
    return "stopped"


def _found_or_prepared(
    context: WorkerContext, pulse: Pulse, delivery: Delivery, pause: Pause
) -> Prepared | Literal["done", "deleted"] | None:
    try:
        row = preparations.preparation(context.store.engine, context.study.id)
        study = studies.find_study(context.store.engine, context.study.name)
    except NotFoundError:
        return _deleted(context)
    if row.state == "failed":
        raise KdsearchError(
            f"study {context.study.name!r} could not be prepared: {row.error}",
            hint="mend the cause, then `kdsearch run FILE` again",
        )
    if row.state == "done" and row.prepared is not None:
        return Prepared.load(context.store.blobs, row.prepared)
    if study.state == "done":  # stopped before it was prepared
        return "done"
    if pause.is_on(study):
        time.sleep(context.options.poll_s)
        return None
    _prepare_or_wait(context, pulse, delivery)
    return None


def _deleted(context: WorkerContext) -> Literal["deleted"]:
    log.warning("the study was deleted: nothing is left to do", study=context.study.name)
    return "deleted"


def _prepare_or_wait(context: WorkerContext, pulse: Pulse, delivery: Delivery) -> None:
    engine, ttl = context.store.engine, context.options.lease_s
    if context.spec.latency.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"study {context.study.name!r} measures latency on a GPU and is not prepared yet: "
            "torch sees no GPU here",
            hint="start a worker on a machine that has one, or `latency: {device: cpu}` in the study file",
        )
    lease = preparations.take_preparation(engine, context.study.id, context.worker_id, ttl)
    if lease is None:
        time.sleep(context.options.poll_s)
        return
    try:
        with pulse.preparing(lease):
            prepare(context, lease, pulse)
    except Stopped:
        with suppress(LeaseLostError):
            preparations.give_back_preparation(engine, lease)
    except LeaseLostError:
        log.warning("another worker prepares the study now")
    except StorageError:  # not the study's fault: another worker goes on with it, or this one later
        with suppress(LeaseLostError):
            delivery.patiently(lambda: preparations.give_back_preparation(engine, lease))
        raise
    except Exception as error:
        with suppress(LeaseLostError):
            preparations.fail_preparation(engine, lease, f"{type(error).__name__}: {error}")
        raise


# -------------------------------------------------------------------- trials


class _Worker:
    """Claims and runs trials of one prepared study."""

    def __init__(
        self,
        context: WorkerContext,
        prepared: Prepared,
        pulse: Pulse,
        delivery: Delivery,
        requests: Requests,
    ) -> None:
        self.context, self.pulse, self.delivery, self.requests = context, pulse, delivery, requests
        self.engine = context.store.engine
        self.material = Material(context, prepared)
        measures = can_measure(context, prepared)
        storage = optuna_storage(context.store)
        self.search = Search.open(storage, context.study.optuna_name, context.plan)
        self.claims = Claims(self.material, self.search, can_measure=measures)
        self.importances = Importances(context)
        self.begun = 0
        if not measures:
            log.warning("this machine is not the study's measuring profile: it trains, it never measures")

    def run(self) -> Outcome:
        while not self.context.should_stop():
            self.delivery.collect()
            try:
                self.requests.carry_out()
                claim = self.delivery.patiently(self._claim)
            except Stopped:
                break
            if claim in ("done", "gone"):
                return "done" if claim == "done" else _deleted(self.context)
            if isinstance(claim, Lease):
                self._run(claim)
            else:
                time.sleep(self.context.options.poll_s)
        return "stopped"

    def _claim(self) -> Claim:
        """What is next; may be repeated after any outage."""
        self._tell_what_is_untold()
        self.importances.look()
        claim = self.claims.take()
        if claim == "close":
            closing.put_standings(self.material)
            claim = self.claims.take(conclude=True)
        if claim == "done":
            self._conclude_what_was_stopped()
            self._tell_what_is_untold()  # closing has given up what was paused
            closing.drop_checkpoints(self.material)
            self.importances.look(at_end=True)
        return claim

    def _conclude_what_was_stopped(self) -> None:
        """A study that a person has stopped is done at once: how sure its front is comes after."""
        if not reads.standings(self.engine, self.context.study.id):
            closing.put_standings(self.material)

    def _run(self, lease: Lease) -> None:
        if self.begun:  # a worker that has just joined trains first
            with self.pulse.running(lease):  # others may ask, too: it may have to wait for minutes
                self.claims.leave_one_ready()
        self.begun += 1
        judge = rungs.Judge(self.material, lease)
        try:
            run_trial(self.material, lease, self.pulse, self.delivery, judge)
        except LeaseLostError:
            log.warning("another worker has this trial now, or the study was stopped", trial=lease.number)

    def _tell_what_is_untold(self) -> None:
        """Tell Optuna what is on record; a crash between the two heals here, in any worker."""
        objective = self.context.spec.objectives.latency
        for row in telling.untold(self.engine, self.context.study.id):
            if row.state == "complete" and row.quality is not None and row.latency is not None:
                self.search.tell_complete(
                    row.number,
                    quality=row.quality,
                    latency_ms=row.latency.at(objective),
                    constraints=row.constraints,
                )
            elif row.state in ("rejected", "stopped"):
                self.search.tell_rejected(row.number, row.constraints)
            else:
                self.search.tell_failed(row.number)
            telling.mark_told(self.engine, self.context.study.id, row.number)
