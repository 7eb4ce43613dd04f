"""The worker processes that `kdsearch run` starts: direct children, each in a session of its own.

A session of its own keeps the terminal's Ctrl-C from them, so that only the parent decides; they ask
for its pid before every step and put their trial away when it is gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdsearch.core.errors import (
    ConflictError,
    KdsearchError,
    NotFoundError,
    StorageError,
    TooManyFailuresError,
    UsageError,
)

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
        self.workers: list[Worker] = []

    def start(self, devices: Sequence[str], *, threads: int) -> None:
        """Start one worker per device named."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, device in enumerate(devices, start=1):
            self.workers.append(self._started(number, device, threads, threads * len(devices)))

    def _started(self, number: int, device: str, threads: int, prepare_threads: int) -> Worker:
        log = self._folder / f"worker-{number}.log"
        arguments = ["--study", self._study, "--device", device, "--threads", str(threads)]
        # One worker prepares while the others wait, so it may use the threads of all.
        arguments += ["--prepare-threads", str(prepare_threads)]
        arguments += ["--parent", str(os.getpid()), "--json", "--debug"]
        with log.open("wb") as into:
            process = subprocess.Popen(
                command_line("worker", "start", *arguments),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=into,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Worker(number, process, log)

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
