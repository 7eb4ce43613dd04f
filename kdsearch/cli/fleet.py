"""The worker processes that `kdsearch run` starts: direct children, each in a session of its own.

A session of its own keeps the terminal's Ctrl-C from them, so that only the parent decides; they ask
for its pid before every step and put their trial away when it is gone. One that was killed or that hung is
replaced, and what it held is free at once: nobody waits for its lease to run out.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.cli.errors import redacted
from kdsearch.core.errors import (
    ConflictError,
    KdsearchError,
    NotFoundError,
    StorageError,
    TooManyFailuresError,
    UsageError,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

TAIL_LINES = 80
MOST_STARTS = 3
"""Workers that are replaced within a minute: if more die, something is wrong that no new one mends."""
_BY_EXIT_CODE: dict[int, type[KdsearchError]] = {
    error.exit_code: error
    for error in (UsageError, NotFoundError, ConflictError, StorageError, TooManyFailuresError)
}


def command_line(*arguments: str) -> list[str]:
    """Arguments for a process that runs another command of this kdsearch, see `child_environment`."""
    return [sys.executable, "-P", "-m", "kdsearch", *arguments]


@dataclass(frozen=True)
class Worker:
    """One started worker."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    device: str

    @property
    def death(self) -> str | None:
        """What killed it; None while it lives, and where it ended by itself, with an error or without."""
        code = self.process.poll()
        if code is not None and code < 0:
            return f"killed by {_signal_name(-code)}"
        return "it made no step for too long" if code == 1 and not _last_error(self.log) else None

    @property
    def exit_code(self) -> int | None:
        """As a shell would tell it; None while it runs."""
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code

    def error(self) -> KdsearchError:
        """What ended it, as its log tells."""
        code = self.exit_code or 0
        told = _last_error(self.log)
        kind = _BY_EXIT_CODE.get(code, KdsearchError)
        if not told or told["code"] == "unexpected":
            message = told.get("message") or f"it ended with exit code {code}"
            return kind(f"worker {self.number}: {message}", hint=f"its log tells more: {self.log}")
        return kind(told["message"], hint=told["hint"])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _last_error(log: Path) -> dict[str, str]:
    """The error object that a worker prints last, or nothing."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in reversed(lines[-20:]):
        if line.startswith('{"schema": "kdsearch.error/'):
            with suppress(json.JSONDecodeError):
                found = json.loads(line)["error"]
                return {key: str(found.get(key) or "") for key in ("code", "message", "hint")}
    return {}


class Fleet:
    """Workers on one study."""

    def __init__(self, study: str, *, folder: Path, environment: Mapping[str, str]) -> None:
        self._study, self._folder = study, folder
        self._environment = dict(environment)
        self._replaced: deque[float] = deque(maxlen=MOST_STARTS)
        self._seen_dead: set[int] = set()
        self._burials: list[threading.Thread] = []
        self._arguments: list[str] = []
        self.workers: list[Worker] = []

    def start(self, devices: Sequence[str], *, threads: int, options: Sequence[str] = ()) -> None:
        """Start one worker per device named; ``options`` are further ones of `kdsearch worker start`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # One worker prepares while the others wait, so it may use the threads of all.
        self._arguments = ["--threads", str(threads), "--prepare-threads", str(threads * len(devices))]
        self._arguments += [*options, "--parent", str(os.getpid()), "--json", "--debug"]
        for number, device in enumerate(devices, start=1):
            (self._folder / f"worker-{number}.log").unlink(missing_ok=True)
            self.workers.append(self._started(number, device))

    def _started(self, number: int, device: str) -> Worker:
        log = self._folder / f"worker-{number}.log"
        arguments = ["--study", self._study, "--device", device, *self._arguments]
        with log.open("ab") as into:
            process = subprocess.Popen(
                command_line("worker", "start", *arguments),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=into,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Worker(number, process, log, device)

    def tend(self, engine: Engine) -> list[str]:
        """Free what killed and hung workers held, and replace them; what there is to say of it."""
        said = []
        for place, worker in enumerate(self.workers):
            death = worker.death
            if death is None or worker.process.pid in self._seen_dead:
                continue
            self._seen_dead.add(worker.process.pid)
            self._bury(engine, worker, death)
            said.append(f"worker {worker.number} died, {death}: {worker.log}")
            if self._may_start():
                self.workers[place] = self._started(worker.number, worker.device)
                said[-1] += "; another one takes its place"
        return said

    def _may_start(self) -> bool:
        now = time.monotonic()
        if len(self._replaced) == MOST_STARTS and now - self._replaced[0] < 60:
            return False
        self._replaced.append(now)
        return True

    def _bury(self, engine: Engine, worker: Worker, death: str) -> None:
        """In a thread: the database may be away, and then the lease runs out by itself."""
        told = (engine, self._study, worker.process.pid, f"{death}\n{_tail(worker.log)}")
        thread = threading.Thread(target=_free_what_it_held, args=told, daemon=True)
        thread.start()
        self._burials.append(thread)

    @property
    def alive(self) -> list[Worker]:
        """Those still running."""
        return [worker for worker in self.workers if worker.exit_code is None]

    def drain(self) -> None:
        """Ask every worker to put its trial away and leave."""
        for worker in self.alive:
            worker.process.terminate()

    def kill(self) -> None:
        """End every worker and whatever it started, now."""
        for worker in self.alive:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
        for worker in self.workers:
            worker.process.wait()
        for thread in self._burials:
            thread.join(timeout=2)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return redacted("\n".join(lines[-TAIL_LINES:]))


def _free_what_it_held(engine: Engine, study: str, pid: int, told: str) -> None:
    from kdsearch.store import leases, reads, studies

    with suppress(StorageError, NotFoundError):
        study_id = studies.find_study(engine, study).id
        mine = (row for row in reads.workers(engine, study_id) if row.pid == pid)
        here = [row for row in mine if row.host == socket.gethostname()]
        if here:
            newest = max(here, key=lambda row: row.started_at)
            leases.fail_attempts_of(engine, newest.id, "crash", told)
