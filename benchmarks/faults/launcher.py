"""A worker process as `kdsearch worker start` makes it, but that it waits at a given point to be struck.

Nothing of this is in the product: functions of the worker are replaced in this process alone. Latency is a
made-up figure, taken under the host lock, so that a run takes seconds.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kdsearch.cli import output
from kdsearch.cli.worker import StopSignals, leave_question, stop_question
from kdsearch.core.errors import EXIT_TERMINATED
from kdsearch.core.records import Latency
from kdsearch.distill.epoch import Epoch
from kdsearch.measure import hostlock
from kdsearch.measure.profile import hardware_profile
from kdsearch.search import check
from kdsearch.store import artifacts, reads
from kdsearch.store.connect import open_store
from kdsearch.worker import delivery, loop, measuring
from kdsearch.worker import trial as trial_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.parcels import Parcel
from kdsearch.worker.spool import Spool

HANG_S = 1.5
HEADER = b"kdsearch checkpoint of study"
LOCK_PATIENCE_S = 5.0
SLOWEST_S = 1.5


class Fault(Exception):  # noqa: N818 - what strikes
    """Raised where a case says so."""


@dataclass(frozen=True)
class Plan:
    """What one worker process is told."""

    name: str
    folder: Path
    """Of the case: where workers and the one who strikes them leave each other notes."""
    url: str
    artifacts: str
    home: Path
    study: str
    point: str = ""
    """Where it waits, e.g. ``epoch step``; nowhere if empty."""
    lease_s: float = 4.0
    driver: int = field(default_factory=os.getpid)
    """Process that made this plan: a worker does not outlive it for long."""

    def note(self, what: str) -> Path:
        """A file that says one thing."""
        return self.folder / f"{self.name}.{what}"


def tell(path: Path, text: str) -> None:
    """Write a note that is never seen half."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text)
    partial.replace(path)


def write_line(folder: Path, line: str) -> None:
    """Into the journal of steps, which every process writes: one line, one write."""
    journal = os.open(folder / "steps.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(journal, f"{line}\n".encode())
    finally:
        os.close(journal)


class Gate:
    """The point at which a worker waits, once."""

    def __init__(self, plan: Plan, options: WorkerOptions) -> None:
        self._plan, self._options = plan, options
        self._passed = False
        self.lease: Any = None

    def at(self, point: str) -> None:
        """Here it is; what is to happen stands in the note that answers."""
        if self._passed or point != self._plan.point:
            return
        self._passed = True
        thread = "training" if threading.current_thread() is threading.main_thread() else "delivering"
        write_line(self._plan.folder, f"{self._plan.name} {self.lease.number} {self.lease.attempt} {thread}")
        tell(self._plan.note("here"), f"{self.lease.number} {self.lease.attempt}")
        while not self._plan.note("go").exists():
            time.sleep(0.01)
        then = self._plan.note("go").read_text()
        if then == "exception":
            raise Fault("an error that nobody expects")
        if then == "hang":
            object.__setattr__(self._options, "hang_s", HANG_S)  # only now: a busy machine is no hang
            while True:
                time.sleep(1)


# ---------------------------------------------------------------- what is replaced


def _figure(gate: Gate) -> Callable[..., Latency]:
    def figure(module: Any, texts: Any, encode: Any, spec: Any, lock: Any, *, seed: int) -> Latency:
        with lock.measuring(LOCK_PATIENCE_S):
            if gate.lease is not None:  # else the teacher's
                gate.at("lease measure")
        return Latency(
            p50_ms=1.0,
            p90_ms=1.0,
            p99_ms=1.0,
            mean_ms=1.0,
            num_queries=10,
            seconds=1.0,
            size_mb=1.0,
            num_params=10,
            tokenize_p50_ms=0.1,
            noisy=False,
            profile=hardware_profile(spec),
        )

    return figure


def _watch_trials(gate: Gate) -> None:
    run, fit = loop.run_trial, trial_module.fit

    def run_trial(material: Any, lease: Any, *args: Any) -> None:
        gate.lease = lease
        run(material, lease, *args)

    def begun(*args: Any, **kwargs: Any) -> Any:
        gate.at("lease fit")
        return fit(*args, **kwargs)

    loop.run_trial, trial_module.fit = run_trial, begun  # type: ignore[assignment]


def _watch_steps(gate: Gate, plan: Plan) -> None:
    """Every step of every attempt is written down, by whichever process."""
    between, breathe = Epoch._between_steps, Epoch.breathe

    def watched(self: Any) -> None:
        epoch, batch = self.progress.epochs_run, self._batches
        if epoch == 1 and batch == 2:
            gate.at("epoch step")
        between(self)
        if gate.lease is not None and not self.validating:
            write_line(plan.folder, f"{plan.name} {gate.lease.number} {gate.lease.attempt} {epoch} {batch}")

    def validating(self: Any) -> None:
        if self.progress.epochs_run == 1:
            gate.at("epoch validation")
        self.validating = True
        try:
            breathe(self)
        finally:
            self.validating = False

    Epoch.validating = False  # type: ignore[attr-defined]
    Epoch._between_steps, Epoch.breathe = watched, validating  # type: ignore[method-assign]


def _watch_writing(gate: Gate) -> None:
    publish, finish = Spool._publish, artifacts._finish
    written: list[Path] = []
    stored: list[Any] = []

    def spooled(self: Any, data: bytes, target: Path) -> None:
        if data.startswith(HEADER):
            written.append(target)
            if len(written) == 2:
                target.with_name(f"{target.name}.part").write_bytes(data[: len(data) // 2])
                gate.at("checkpoint spool")
        publish(self, data, target)

    def finished(file: Any) -> None:
        file.flush()
        with Path(f"/dev/fd/{file.fileno()}").open("rb") as seen:
            is_checkpoint = seen.read(len(HEADER)) == HEADER
        if is_checkpoint and gate.lease is not None:
            stored.append(file)
            if len(stored) >= 2:
                gate.at("checkpoint store")
        finish(file)

    Spool._publish, artifacts._finish = spooled, finished  # type: ignore[method-assign]


def _watch_deliveries(gate: Gate) -> None:
    record = Parcel.record

    def recorded(self: Parcel, engine: Any) -> None:
        second = self.kind == "epoch" and self.values["report"]["epoch"] == 2
        if second:
            gate.at("row before")
        if self.kind == "complete":
            gate.at("result before")
        record(self, engine)
        if second:
            gate.at("row after")
        if self.kind == "complete":
            gate.at("result committed")

    Parcel.record = recorded  # type: ignore[method-assign]


def _make_disk_fillable(plan: Plan) -> None:
    """While a note says so, whatever is written into the artifact store goes where the kernel has no room."""
    refusals = os.open(plan.folder / "refusals.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @contextmanager
    def refused() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                os.write(refusals, f"{plan.name}\n".encode())
            raise

    partial = artifacts._partial_file

    @contextmanager
    def partial_file(folder: Path) -> Iterator[tuple[Any, Path]]:
        with refused(), partial(folder) as made:
            yield made

    def mkstemp(**kwargs: Any) -> tuple[int, str]:
        if not (plan.folder / "full").exists():
            return tempfile.mkstemp(**kwargs)
        return os.open("/dev/full", os.O_WRONLY), str(Path(kwargs["dir"]) / "nowhere")

    artifacts.tempfile = SimpleNamespace(mkstemp=mkstemp)  # type: ignore[attr-defined]
    artifacts._partial_file = partial_file


# ---------------------------------------------------------------- processes


def _say_into(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(log, number)


def _options(plan: Plan, signals: StopSignals) -> WorkerOptions:
    told_to_leave = leave_question(signals, None)

    def ended_by() -> int | None:
        return told_to_leave() if Path(f"/proc/{plan.driver}").exists() else EXIT_TERMINATED

    return WorkerOptions(
        lock_folder=plan.folder / "locks",
        poll_s=0.1,
        lease_s=plan.lease_s,
        ended_by=ended_by,
    )


def work(plan: Plan) -> None:
    """Be a worker until the study is done; exits as `kdsearch worker start` does."""
    _say_into(plan.note("log"))
    faulthandler.enable()
    signals = StopSignals()
    signals.listen()
    output.log_to_stderr()
    options = _options(plan, signals)
    gate = Gate(plan, options)
    hostlock.TRAINER_PATIENCE_S = LOCK_PATIENCE_S
    delivery.SLOWEST_S = SLOWEST_S
    measuring.measure_latency = _figure(gate)
    _watch_trials(gate)
    _watch_steps(gate, plan)
    _watch_writing(gate)
    _watch_deliveries(gate)
    _make_disk_fillable(plan)
    with open_store(plan.url, plan.artifacts, home=plan.home) as store:
        loop.work(store, plan.study, options=options, should_stop=stop_question(signals, None))
    sys.exit(signals.exit_code)


def prepare(plan: Plan, file: Path) -> None:
    """Create the study and prepare its teacher, no more."""
    _say_into(plan.note("log"))
    options = _options(plan, StopSignals())
    measuring.measure_latency = _figure(Gate(plan, options))
    with open_store(plan.url, plan.artifacts, home=plan.home) as store:
        create_or_resume(store, check.load(file, {}), on_progress=lambda _: None)

        def is_prepared() -> bool:
            return reads.study(store.engine, plan.study).prepared is not None

        loop.work(store, plan.study, options=options, should_stop=is_prepared)
