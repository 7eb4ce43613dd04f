"""What every part of a worker is handed: the study, the store, the machine, and when to let go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from kdsearch.core.spec import StudySpec
from kdsearch.data.inputs import Inputs
from kdsearch.measure.hostlock import HostLock
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import registered
from kdsearch.store.connect import Store
from kdsearch.store.history import History
from kdsearch.store.studies import StudyRecord

log = structlog.get_logger()
Export: TypeAlias = Callable[[Store, str, Mapping[str, Any], Path, Callable[[str], None]], int]
"""Exports a student of the study of a name into a new folder, and says how far it is; the trial's number.

Which student is said as in a request: ``{"trial": 3}``, or ``{"within": {"latency_ms": 2.0}}``.
"""


class Stopped(Exception):  # noqa: N818 - not an error: the worker was asked to let go
    """The worker was asked to stop; what is finished is stored."""


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How one worker process uses its machine."""

    device: str = "cpu"
    """``cpu`` or ``cuda:N``."""
    threads: int = 1
    prepare_threads: int = 1
    """Threads while preparing the teacher, when the other workers of the host only wait."""
    lock_folder: Path = Path()
    """Shared by all workers of the host, so that nothing trains while latency is measured."""
    poll_s: float = 0.5
    lease_s: float = 60.0
    checkpoint_s: float = 300.0
    """A trial is stored at the end of every epoch, and in the middle of one this often."""
    hang_s: float = 900.0
    """A worker that makes no step for so long is taken to hang, and ended."""
    outage_s: float = 3600.0
    """How long a database or artifact store that is away is waited for."""
    ended_by: Callable[[], int | None] | None = None
    """Asked from another thread: the exit code once this process is to leave, None before that."""
    export: Export | None = None
    """Handed over by whoever starts the worker: exporting is a stranger on the same floor."""


class Progress:
    """Counts the steps of the worker's own thread, so that another one sees whether it makes any."""

    def __init__(self) -> None:
        self.steps = 0
        self._counts: Callable[[], bool] = lambda: True

    def step(self) -> None:
        """Something was done."""
        if self._counts():
            self.steps += 1

    @contextmanager
    def counting_if(self, counts: Callable[[], bool]) -> Iterator[None]:
        """Within the block a step is one if this says so: for a thread that waits for another one."""
        before, self._counts = self._counts, counts
        try:
            yield
        finally:
            self._counts = before

    def asking(self, question: Callable[[], bool]) -> Callable[[], bool]:
        """The same question; asking it is a step."""

        def asked() -> bool:
            self.step()
            return question()

        return asked


class Pause:
    """Says that the study is paused, once until it goes on."""

    def __init__(self) -> None:
        self._said = False

    def is_on(self, study: StudyRecord) -> bool:
        """Whether the study is paused."""
        paused = study.state == "paused"
        if paused and not self._said:
            log.info("the study is paused: this worker waits", resume=f"kdsearch study resume {study.name}")
        self._said = paused
        return paused


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """Frozen for the life of the worker; ``should_stop`` turns true once."""

    store: Store
    study: StudyRecord
    spec: StudySpec
    inputs: Inputs
    options: WorkerOptions
    worker_id: str
    lock: HostLock
    should_stop: Callable[[], bool]
    progress: Progress = field(default_factory=Progress)
    """Asking `should_stop` is a step, too."""
    drained: threading.Event = field(default_factory=threading.Event)
    """Set when somebody has asked this worker to leave; then `should_stop` is true."""

    @cached_property
    def plan(self) -> Plan:
        """What the study searches: the space narrowed to what it offers."""
        return Plan(self.spec, registered(self.inputs.facts))

    @cached_property
    def history(self) -> History:
        """The study's trials, with learning curves where some may end early; for the worker's own thread."""
        name, stops_early = self.spec.objectives.latency, self.spec.search.pruner != "none"
        return History(self.study.id, name, with_epochs=stops_early)
