"""Delivery: what a worker has to put on record goes to its disk first, and from there in order to its place.

Training never waits for Postgres or for the artifact store: a thread delivers, and tries again for as long as
either is away. What a killed worker left is delivered by a later one of the same state folder; what the
database refuses, because somebody else has the trial by then, is dropped and said.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from kdsearch.core.errors import ArtifactError, KdsearchError, LeaseLostError, StorageError
from kdsearch.store.leases import Lease
from kdsearch.store.transactions import UnavailableError, without_secrets
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.parcels import Parcel
from kdsearch.worker.spool import Adoption, Spool, abandoned, spool_folder

T = TypeVar("T")
LONGEST_WAIT_S = 15.0
ANOTHER_S = 600.0
"""What fails after so much time without a failure is another outage."""
LOOK_S = 5.0
"""How often an idle worker looks for what others left."""
FAREWELL_S = 3.0
"""How long a worker that is to stop waits for what it has sent."""
OTHERS_S = 120.0
"""How long a claim waits for another worker that delivers what was left: it may have been stopped."""
SLOWEST_S = 300.0
"""What one attempt to deliver may take while the database is slow or away; one that takes longer hangs."""
NONE_BEFORE: tuple[str, ...] = ()
UNREADABLE = (ValueError, KeyError, TypeError)
"""What a parcel of another version raises."""

log = structlog.get_logger()


@dataclass(frozen=True)
class _Sent:
    """A parcel on its way, and where it is on this disk; `letter` is None where the disk was full."""

    parcel: Parcel
    spool: Spool | None
    letter: str | None


def is_away(error: BaseException) -> bool:
    """Whether it may be otherwise in a while; what is missing or damaged is not mended by waiting."""
    if isinstance(error, KdsearchError):
        is_store = isinstance(error, ArtifactError) and error.__cause__ is not None
        return is_store or isinstance(error, UnavailableError)
    if isinstance(error, DBAPIError):  # Optuna's own tables speak SQLAlchemy
        return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return error.__cause__ is not None and is_away(error.__cause__)


def _first_line(error: BaseException) -> str:
    return without_secrets(str(error).partition("\n")[0])


def _holder(lease: Lease) -> tuple[object, ...]:
    return tuple(lease.fence.values())


class Delivery:
    """Implements core's Blobs, too: what is put here goes with the next parcel, and can be read back."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._folder = spool_folder(context.store.home, context.study)
        self._pending: list[str] = []
        self._queue: deque[_Sent] = deque()
        self._changed = threading.Condition()
        self._refused: set[tuple[object, ...]] = set()
        self._error: BaseException | None = None
        self._closed = threading.Event()
        self._taken: list[Spool] = []
        self._adoption = Adoption(self._folder)
        self._adopting = threading.Lock()
        self._tried_at = time.monotonic()

    @contextmanager
    def delivering(self) -> Iterator[Delivery]:
        """Deliver from now until the block ends, and first what others left; what is left then stays on disk.

        Raises what `check` raises.
        """
        self._spool = self._own_spool()
        self._adopt()
        thread = threading.Thread(target=self._deliver_for_ever, name="kdsearch-delivery", daemon=True)
        thread.start()
        try:
            self.settle()
            yield self
        finally:
            with self._changed:  # inside, so that the thread does not begin to wait just now
                self._closed.set()
                self._changed.notify_all()
            thread.join(timeout=1)
            if not thread.is_alive():
                for spool in (self._spool, *self._taken):
                    if spool is not None:
                        spool.close()
                self._adoption.end()

    def _own_spool(self) -> Spool | None:
        """None where this disk takes nothing: then everything is delivered from memory."""
        try:
            return Spool.take(self._folder / self._context.worker_id)
        except OSError as error:
            log.warning("cannot keep results on this disk", folder=str(self._folder), error=str(error))
            return None

    # ---------------------------------------------------------------- what the worker's thread calls

    def put(self, data: bytes | Path) -> str:
        """Keep bytes for the next parcel, on this disk; where that is full, in the artifact store at once."""
        content = data if isinstance(data, bytes) else data.read_bytes()
        try:
            sha256 = None if self._spool is None else self._spool.put(content)
        except OSError as error:
            log.warning("no room on this disk: stored without it", folder=str(self._folder), error=str(error))
            sha256 = None
        if sha256 is None:
            return self.patiently(lambda: self._context.store.blobs.put(content))
        self._pending.append(sha256)
        return sha256

    def open(self, sha256: str) -> Path:
        """A file with these bytes, whether they are delivered or not."""
        here = self._here(sha256)
        return self._context.store.blobs.open(sha256) if here is None else here

    def exists(self, sha256: str) -> bool:
        """Whether they are here or in the artifact store."""
        return self._here(sha256) is not None or self._context.store.blobs.exists(sha256)

    def _here(self, sha256: str) -> Path | None:
        path = None if self._spool is None else self._spool.path(sha256)
        return path if path is not None and path.exists() else None

    def remove(self, sha256: str) -> None:
        """From the artifact store: on this disk bytes stay until they are delivered."""
        self._context.store.blobs.remove(sha256)

    def send(
        self,
        kind: str,
        lease: Lease,
        values: Mapping[str, Any] | None = None,
        *,
        removes: tuple[str, ...] = NONE_BEFORE,
    ) -> None:
        """Put something on record, in order, with all that was put since the last parcel."""
        blobs, self._pending = tuple(self._pending), []
        parcel = Parcel(kind=kind, lease=lease, values=values or {}, blobs=blobs, removes=removes)
        try:
            letter = None if self._spool is None else self._spool.write(parcel.to_text())
        except OSError as error:
            log.warning("no room on this disk: delivered from memory", error=str(error))
            letter = None
        with self._changed:
            self._queue.append(_Sent(parcel, self._spool, letter))
            self._changed.notify_all()

    def refused(self, lease: Lease) -> bool:
        """Whether the database refused something of this lease: somebody else has the trial."""
        return _holder(lease) in self._refused

    @property
    def broken(self) -> bool:
        """Whether nothing is delivered any more; `check` says why."""
        return self._error is not None

    def check(self) -> None:
        """Raise what ended the delivery: an outage that was too long, or what no waiting mends."""
        if self._error is not None:
            raise self._error

    def flush(self, timeout_s: float) -> bool:
        """Whether everything was delivered within this time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._queue and self._error is None and (left := deadline - time.monotonic()) > 0:
                self._context.progress.step()
                self._changed.wait(min(left, 0.5))
            return not self._queue

    def settle(self) -> None:
        """Wait until everything is delivered, however long; briefly where the worker is to stop.

        What is not delivered by then stays on disk for a later worker. Raises what `check` raises. Waiting is
        no step where the delivery itself hangs: then this worker does.
        """
        with self._context.progress.counting_if(self._moves):
            while not self._context.should_stop():
                if self.flush(0.2):
                    return
                self.check()
            self.flush(FAREWELL_S)

    def _moves(self) -> bool:
        return time.monotonic() - self._tried_at < SLOWEST_S

    def collect(self) -> None:
        """Deliver what workers that are gone have left: call before a trial is claimed, it may be theirs.

        Where another worker does so, its end is awaited. Raises what `check` raises.
        """
        deadline = time.monotonic() + OTHERS_S
        while not self._adopt() and not self._context.should_stop() and time.monotonic() < deadline:
            self._context.progress.step()
            time.sleep(0.1)
        if self._queue:
            self.settle()

    def patiently(self, do: Callable[[], T]) -> T:
        """Do it, again and again while database or artifact store are away; Stopped when it is to let go."""
        patience = _Patience(self._context.options.outage_s)
        while True:
            try:
                return do()
            except Exception as error:
                wait_s = patience.next_wait() if is_away(error) else None
                if wait_s is None:
                    raise
                if self._context.should_stop():
                    raise Stopped from error
                log.warning("trying again", error=_first_line(error))
                self._pause(wait_s)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._context.should_stop():
            time.sleep(0.1)

    # ---------------------------------------------------------------- what the other thread does

    def _deliver_for_ever(self) -> None:
        patience = _Patience(self._context.options.outage_s)
        while not self._closed.is_set():
            sent = self._next()
            if sent is None:
                continue
            self._tried_at = time.monotonic()
            try:
                self._deliver(sent)
                patience = _Patience(self._context.options.outage_s)
            except BaseException as error:  # noqa: BLE001 - the worker hears of it: it would wait for ever
                self._wait_out(error, patience, sent)

    def _wait_out(self, error: BaseException, patience: _Patience, sent: _Sent) -> None:
        wait_s = patience.next_wait() if is_away(error) else None
        if wait_s is not None:
            log.warning("not delivered yet, trying again", what=sent.parcel.kind, error=_first_line(error))
            self._closed.wait(wait_s)
            return
        if sent.spool is not self._spool and isinstance(error, UNREADABLE):  # each worker would die of it
            log.error("dropped what cannot be read", what=sent.parcel.kind, error=_first_line(error))
            self._done(sent)
            return
        with self._changed:
            self._error = error
            self._closed.set()
            self._changed.notify_all()

    def _next(self) -> _Sent | None:
        """The oldest; None after a while without any."""
        with self._changed:
            if not self._queue and not self._closed.is_set():
                self._changed.wait(LOOK_S)
            if self._queue:
                return self._queue[0]
        if not self._closed.is_set():
            self._adopt()
        return None

    def _deliver(self, sent: _Sent) -> None:
        try:
            for sha256 in sent.parcel.blobs:
                self._store(sha256, sent.spool)
                self._tried_at = time.monotonic()
            sent.parcel.record(self._context.store.engine)
        except LeaseLostError as error:
            log.warning("refused, and dropped", what=sent.parcel.kind, error=error.what)
            self._refused.add(_holder(sent.parcel.lease))
        else:
            self._remove(sent.parcel.removes)
        self._done(sent)

    def _store(self, sha256: str, spool: Spool | None) -> None:
        path = None if spool is None else spool.path(sha256)
        if path is not None and path.exists():
            self._context.store.blobs.put(path)

    def _remove(self, blobs: tuple[str, ...]) -> None:
        for sha256 in blobs:
            try:
                self._context.store.blobs.remove(sha256)
            except StorageError as error:  # it costs room, nothing else
                log.warning("a superseded checkpoint stays", artifact=sha256, error=error.what)

    def _done(self, sent: _Sent) -> None:
        if sent.spool is not None:
            sent.spool.forget(sent.letter, sent.parcel.blobs)
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()
        self._end_adoption()

    def _end_adoption(self) -> None:
        with self._adopting, self._changed:
            if all(sent.spool is self._spool for sent in self._queue):
                self._adoption.end()

    def _adopt(self) -> bool:
        """Take over what workers that are gone have left, behind what waits.

        False where another worker is about it: until it has delivered all, nobody knows what is missing.
        """
        with self._adopting:
            if not self._adoption.begin():
                return False
            self._take_over()
        self._end_adoption()
        return True

    def _take_over(self) -> None:
        for spool in abandoned(self._folder):
            found = list(_parcels(spool))
            if not found:
                spool.close()
                continue
            log.warning("delivering what a worker left", worker=spool.folder.name, parcels=len(found))
            self._taken.append(spool)
            with self._changed:
                self._queue.extend(found)
                self._changed.notify_all()


def _parcels(spool: Spool) -> Iterator[_Sent]:
    for name, text in spool.letters():
        try:
            parcel = Parcel.from_text(text)
        except UNREADABLE as error:
            log.error("dropped what cannot be read", file=str(spool.folder / name), error=str(error))
            spool.forget(name, ())
            continue
        for sha256 in parcel.blobs:
            spool.use(sha256)
        yield _Sent(parcel, spool, name)


class _Patience:
    """Waits that grow, until an outage has lasted for too long."""

    def __init__(self, outage_s: float) -> None:
        self._outage_s = outage_s
        self._since = self._last = -math.inf
        self._wait = 0.25

    def next_wait(self) -> float | None:
        """Seconds to wait; None when it has been waited for long enough."""
        now = time.monotonic()
        if now - self._last > ANOTHER_S:
            self._since, self._wait = now, 0.25
        self._last = now
        if now - self._since > self._outage_s:
            return None
        self._wait = min(2 * self._wait, LONGEST_WAIT_S)
        return self._wait
