"""Pulse: the thread that keeps a worker's lease alive, sweeps for the dead and counts the hours.

The lease's time is the database's. A pulse that finds its lease lost turns `lost` true, and the
worker lets go at its next step; a database that is away for a while is asked again at the next beat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from kdsearch.core.errors import LeaseLostError, StorageError
from kdsearch.store import leases, studies, workers
from kdsearch.store.transactions import begin
from kdsearch.worker.context import WorkerContext

log = structlog.get_logger()


class Pulse:
    """Beats until closed; holds at most one lease at a time."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._renew: Callable[[], None] | None = None
        self._changed = threading.Lock()
        self._closed = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat_for_ever, name="kdsearch-pulse", daemon=True)

    @contextmanager
    def beating(self) -> Iterator[Pulse]:
        """Beat from now until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._closed.set()
            self._thread.join(timeout=10)

    @contextmanager
    def holding(self, renew: Callable[[], None]) -> Iterator[None]:
        """Renew a lease at every beat of the block; ``renew`` raises LeaseLostError when it is gone."""
        with self._changed:
            self._lost.clear()
            self._renew = renew
        try:
            yield
        finally:
            with self._changed:
                self._renew = None

    @property
    def lost(self) -> bool:
        """Whether the lease held now went to somebody else."""
        return self._lost.is_set()

    def _beat_for_ever(self) -> None:
        while not self._closed.wait(self._context.options.lease_s / 6):
            try:
                self._beat()
            except StorageError as error:
                log.warning("database away, trying again", error=error.what)
            except Exception:  # without this thread the lease would run out under a healthy worker
                log.exception("a beat failed, trying again")

    def _beat(self) -> None:
        engine, study_id = self._context.store.engine, self._context.study.id
        with self._changed:
            if self._renew is not None and not self._lost.is_set():
                try:
                    self._renew()
                except LeaseLostError:
                    self._lost.set()
            busy = self._renew is not None
        workers.seen(engine, self._context.worker_id)
        if busy:
            studies.touch_active(engine, study_id)
        with begin(engine) as conn:  # safe without the study's turn, and never waits behind an ask
            leases.sweep(conn, study_id)
