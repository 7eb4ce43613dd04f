"""Watchdog: ends a worker process that hangs, or that was told to leave and does not.

A thread of its own, since the worker's may be inside a library that comes back in minutes or never: a
database that does not answer, an ONNX export, a broken driver. Time counts only while this thread runs, so
that a process that was stopped (SIGSTOP, a suspended laptop) is not taken to hang when it wakes up.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from kdsearch.worker.context import WorkerContext

LEAVE_S = 6.0
"""A worker that was told to leave has so long to come to a good end; 10 s are what a machine may leave it."""
LAST_WORD_S = 2.0
"""What the database may take to be told, before the process ends anyway."""
LOOK_S = 0.25
EXIT_HANG = 1

log = structlog.get_logger()


def stacks() -> str:
    """Where every thread of this process is, the main thread first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != main)
    return "\n".join(
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in frames
        if ident != threading.get_ident()
    )


class Watchdog:
    """Looks until the block ends; ``give_back`` and ``fail`` are what it does with the lease before."""

    def __init__(
        self, context: WorkerContext, *, give_back: Callable[[], None], fail: Callable[[str], None]
    ) -> None:
        self._context = context
        self._give_back, self._fail = give_back, fail
        self._closed = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch from now until the block ends."""
        threading.Thread(target=self._watch, name="kdsearch-watchdog", daemon=True).start()
        try:
            yield
        finally:
            if self._told_to_leave() is None:  # else to the end of the process: its last words may take long
                self._closed.set()

    def _told_to_leave(self) -> int | None:
        asked = self._context.options.ended_by
        return None if asked is None else asked()

    def _watch(self) -> None:
        options, progress = self._context.options, self._context.progress
        look_s = min(LOOK_S, options.hang_s / 10)
        steps, idle, leaving = progress.steps, 0.0, 0.0
        before = time.monotonic()
        while not self._closed.wait(look_s):
            now = time.monotonic()
            passed, before = min(now - before, 4 * look_s), now
            code = self._told_to_leave()
            if code is not None:
                leaving += passed
                if leaving > LEAVE_S:
                    self._leave(code)
            idle = idle + passed if progress.steps == steps else 0.0
            steps = progress.steps
            if idle > options.hang_s:
                self._end_the_hang()

    def _leave(self, code: int) -> None:
        log.warning("told to leave and still busy: the lease is given back, the process ends")
        _within(LAST_WORD_S, self._give_back)
        _end(code)

    def _end_the_hang(self) -> None:
        where = stacks()
        log.error(f"no step for {self._context.options.hang_s:g} s: the process ends\n{where}")
        _within(5 * LAST_WORD_S, lambda: self._fail(where))
        _end(EXIT_HANG)


def _within(seconds: float, do: Callable[[], None]) -> None:
    """Do it, or leave it undone: what it needs may be what hangs."""

    def attempt() -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - whatever it is, the lease runs out by itself
            log.warning("could not be told", error=str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
