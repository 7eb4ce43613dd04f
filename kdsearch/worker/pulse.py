"""Pulse: the thread that keeps a worker's lease alive, sweeps for the dead and counts the hours.

The lease's time is the database's. A pulse that finds its lease lost turns `lost` true, and the
worker lets go at its next step; a database that is away for a while is asked again at the next beat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from kdsearch.core.errors import LeaseLostError, NotFoundError, StorageError
from kdsearch.store import leases, preparations, requests, studies, workers
from kdsearch.store.leases import Lease
from kdsearch.store.preparations import PreparationLease
from kdsearch.store.requests import RequestLease
from kdsearch.store.transactions import begin
from kdsearch.worker.context import WorkerContext
from kdsearch.worker.watchdog import Watchdog

log = structlog.get_logger()
PARTING_S = 2.0
"""How long a worker that leaves waits for a beat under way: it may be waiting for a database."""


def _nothing() -> None:
    """Where nobody says what to do."""


@dataclass(frozen=True)
class Held:
    """What is done with the lease that is held, by threads other than the one that works under it."""

    renew: Callable[[], None]
    """Raises LeaseLostError when it is gone."""
    give_back: Callable[[], None] = _nothing
    fail: Callable[[str], None] | None = None
    """Takes a traceback: the work hangs."""
    searches: bool = True
    """Whether the study's hours are spent meanwhile."""


class Pulse:
    """Beats until closed; holds at most one lease at a time."""

    BEATS = 6
    """Within the time of a lease."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._held: Held | None = None
        self._closed = threading.Event()
        self._lost = threading.Event()
        self._out_of_time = threading.Event()
        self._deleted = threading.Event()
        self._thread = threading.Thread(target=self._beat_for_ever, name="kdsearch-pulse", daemon=True)

    @contextmanager
    def beating(self) -> Iterator[Pulse]:
        """Beat from now until the block ends, and watch that the worker makes steps, and leaves when told."""
        self._thread.start()
        try:
            with Watchdog(self._context, give_back=self._give_back, fail=self._fail).watching():
                yield self
        finally:
            self._closed.set()
            self._thread.join(timeout=PARTING_S)

    @contextmanager
    def running(self, lease: Lease) -> Iterator[None]:
        """Hold the lease of a trial for the block."""
        engine, ttl = self._context.store.engine, self._context.options.lease_s
        held = Held(
            renew=lambda: leases.renew(engine, lease, ttl),
            give_back=lambda: leases.give_back(engine, lease),
            fail=lambda traceback: leases.fail_attempt(engine, lease, "hang", traceback),
        )
        with self._holding(held):
            yield

    @contextmanager
    def preparing(self, lease: PreparationLease) -> Iterator[None]:
        """Hold the lease of the preparation for the block."""
        engine, ttl = self._context.store.engine, self._context.options.lease_s
        held = Held(
            renew=lambda: preparations.renew_preparation(engine, lease, ttl),
            give_back=lambda: preparations.give_back_preparation(engine, lease),
        )
        with self._holding(held):
            yield

    @contextmanager
    def carrying_out(self, lease: RequestLease) -> Iterator[None]:
        """Hold the lease of a request for the block."""
        engine, ttl = self._context.store.engine, self._context.options.lease_s
        held = Held(
            renew=lambda: requests.renew(engine, lease, ttl),
            give_back=lambda: requests.give_back(engine, lease),
            searches=False,
        )
        with self._holding(held):
            yield

    @contextmanager
    def holding(self, renew: Callable[[], None]) -> Iterator[None]:
        """Renew a lease at every beat of the block; ``renew`` raises LeaseLostError when it is gone."""
        with self._holding(Held(renew)):
            yield

    @contextmanager
    def _holding(self, held: Held) -> Iterator[None]:
        before, self._held = self._held, held
        self._lost.clear()
        try:
            yield
        finally:
            self._held = before

    @property
    def lost(self) -> bool:
        """Whether the lease held now went to somebody else."""
        return self._lost.is_set()

    @property
    def out_of_time(self) -> bool:
        """Whether the study has spent its hours: trials that run are paused."""
        return self._out_of_time.is_set()

    @property
    def deleted(self) -> bool:
        """Whether the study is no longer there."""
        return self._deleted.is_set()

    # ---------------------------------------------------------------- the other thread

    def _beat_for_ever(self) -> None:
        while not self._closed.wait(self._context.options.lease_s / self.BEATS):
            try:
                self._beat()
            except StorageError as error:
                log.warning("database away, trying again", error=error.what)
            except Exception:  # without this thread the lease would run out under a healthy worker
                log.exception("a beat failed, trying again")

    def _beat(self) -> None:
        engine, study_id = self._context.store.engine, self._context.study.id
        busy = self._renew()
        if workers.seen(engine, self._context.worker_id):
            self._leave()
        if busy:
            studies.touch_active(engine, study_id)
            if self._context.options.device.startswith("cuda"):
                studies.touch_gpu(engine, self._context.worker_id)
        self._look_at_the_study()
        with begin(engine) as conn:  # safe without the study's turn, and never waits behind an ask
            leases.sweep(conn, study_id)

    def _renew(self) -> bool:
        """Whether it is busy with the search; nothing is locked here: the database may be away for long."""
        held = self._held
        if held is not None and not self._lost.is_set():
            try:
                held.renew()
            except LeaseLostError:
                if held is self._held:
                    self._lost.set()
        return held is not None and held.searches

    def _leave(self) -> None:
        if not self._context.drained.is_set():
            log.info("asked to leave: the trial is put away")
            self._context.drained.set()

    def _look_at_the_study(self) -> None:
        study = self._context.study
        try:
            there = studies.find_study(self._context.store.engine, study.name).id == study.id
        except NotFoundError:
            there = False
        if not there:
            self._deleted.set()
            return
        with begin(self._context.store.engine) as conn:
            out_of_time = studies.budget_state(conn, study.id).out_of_time
        (self._out_of_time.set if out_of_time else self._out_of_time.clear)()

    # ---------------------------------------------------------------- the watchdog's

    def _give_back(self) -> None:
        if (held := self._held) is not None:
            held.give_back()

    def _fail(self, traceback: str) -> None:
        held = self._held
        self._held = None  # not renewed any more
        if held is not None and held.fail is not None:
            held.fail(traceback)
