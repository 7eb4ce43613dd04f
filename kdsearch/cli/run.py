"""`kdsearch run FILE`: create or resume a study, start workers, show how it goes, print the front.

This process loads no torch: the study is created by a child, and workers are children too.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from kdsearch.cli import answers, live, output
from kdsearch.cli.fleet import Fleet, command_line
from kdsearch.cli.options import Options, child_environment
from kdsearch.cli.reading import FileArgument
from kdsearch.cli.spent import why_ended
from kdsearch.cli.within import nothing_deployable
from kdsearch.cli.worker import (
    HANG_S,
    OUTAGE_S,
    DeviceOption,
    HangOption,
    OutageOption,
    ThreadsOption,
    checked_device,
)
from kdsearch.core.errors import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    KdsearchError,
    NothingFeasibleError,
    StorageError,
    UsageError,
)

if TYPE_CHECKING:
    from kdsearch.store.connect import Store

LOOK_EVERY_S = 0.5
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=256, help="Worker processes on this machine. [default: 1]", show_default=False
    ),
]
GpusOption = Annotated[
    str | None, typer.Option("--gpus", metavar="LIST", help="GPU numbers, e.g. 0,1: one worker on each.")
]


class Stop:
    """Counts the signals that ask for the end: the first drains, the second kills."""

    def __init__(self) -> None:
        self.count = 0
        self.exit_code = 0

    def listen(self) -> None:
        """Take the signals over from now on."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED


def run(
    options: Options,
    file: FileArgument,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    gpus: GpusOption = None,
    threads: ThreadsOption = 1,
    hang_after: HangOption = HANG_S,
    outage: OutageOption = OUTAGE_S,
) -> None:
    """Run a study file to its end, or go on with it.

    Creates the study, or resumes the one that the same file made before; starts workers; prints the
    Pareto front. Ctrl-C once puts the running trials away and prints how to go on: nothing is lost.
    Twice kills.

    Example: kdsearch run study.yaml --workers 2
    """
    devices = placements(workers, device, gpus)
    stop = Stop()
    stop.listen()
    resume = resume_command(options, file, workers=workers, device=device, gpus=gpus, threads=threads)
    with options.writing() as store:
        name = _created(options, file, store, stop, resume)
        fleet = Fleet(name, folder=store.home / "logs" / name, environment=child_environment(store))
        try:
            patience = ["--hang-after", str(hang_after), "--outage", str(outage)]
            fleet.start(devices, threads=threads, options=patience)
            _watch(store, name, fleet, stop, options)
        finally:
            fleet.kill()
        last = live.look(store.engine, name)
        why = why_ended(store.engine, last.study) if last.study.state == "done" else ""
    if stop.count:
        _leave(stop, resume)
    _conclude(options, last, fleet, why)


def placements(workers: int | None, device: str, gpus: str | None) -> list[str]:
    """A device for each worker to start; raises UsageError."""
    if gpus is None:
        return [checked_device(device)] * (workers or 1)
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise UsageError(f"--gpus {gpus!r} is no list of GPU numbers", hint="for example: --gpus 0,1")
    if workers is not None or device != "auto":
        raise UsageError(
            "--gpus says already how many workers there are and where",
            hint="leave --workers and --device out",
        )
    return [f"cuda:{number}" for number in gpus.split(",")]


def resume_command(
    options: Options, file: Path, *, workers: int | None, device: str, gpus: str | None, threads: int
) -> str:
    """The command that goes on with this run. A storage URL stays out: it may hold a password."""
    parts = ["kdsearch", "run", str(file)]
    parts += ["--workers", str(workers)] if workers is not None else []
    parts += ["--device", device] if device != "auto" else []
    parts += ["--gpus", gpus] if gpus is not None else []
    parts += ["--threads", str(threads)] if threads != 1 else []
    return shlex.join(parts)


def _created(options: Options, file: Path, store: Store, stop: Stop, resume: str) -> str:
    """Name of the study of this file, made or found by a child process."""
    # not quiet unless this is: what is odd about the texts is said while they are read
    flags = ["--json"] if options.json else ["--quiet"] if options.quiet else []
    child = subprocess.Popen(
        command_line("study", "create", str(file), "--if-exists", "resume", "--for-run", *flags),
        env=child_environment(store),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    answer = _awaited(child, stop)
    if stop.count:
        _leave(stop, resume)
    if child.returncode:
        if options.json and answer:
            output.write(answer.rstrip())
        raise typer.Exit(child.returncode if child.returncode > 0 else 128 - child.returncode)
    return str(json.loads(answer)["data"]["study"]) if options.json else answer.strip()


def _awaited(child: subprocess.Popen[str], stop: Stop) -> str:
    while True:
        try:
            return child.communicate(timeout=0.2)[0]
        except subprocess.TimeoutExpired:
            if stop.count == 1:
                child.terminate()
            elif stop.count > 1:
                child.kill()


def _watch(store: Store, name: str, fleet: Fleet, stop: Stop, options: Options) -> None:
    """Show the study until no worker is left."""
    lost: set[int] = set()
    drained = False
    with live.display(quiet=options.quiet) as display:
        while True:
            for death in () if stop.count else fleet.tend(store.engine):
                display.say(death)
            if not fleet.alive:
                break
            _show(store, name, display)
            if stop.count and not drained:
                drained = True
                display.say("stopping: running trials are put away; Ctrl-C once more kills")
                fleet.drain()
            if stop.count > 1:
                fleet.kill()
                return
            for worker in fleet.workers:
                if worker.exit_code and not worker.death and worker.number not in lost and not stop.count:
                    lost.add(worker.number)
                    display.say(
                        f"worker {worker.number} ended with exit code {worker.exit_code}: {worker.log}"
                    )
            time.sleep(LOOK_EVERY_S)
        _show(store, name, display)


def _show(store: Store, name: str, display: live.Display) -> None:
    try:
        display.update(live.look(store.engine, name))
    except StorageError as error:
        # the workers wait for the database too; what was recorded is there when it comes back
        display.say(f"{error.what}; trying again")


def _leave(stop: Stop, resume: str) -> None:
    output.say(f"stopped; to go on: {resume}")
    raise typer.Exit(stop.exit_code)


def _conclude(options: Options, last: live.Look, fleet: Fleet, why: str) -> None:
    """Print the front, or raise what kept the study from it."""
    failed = [worker for worker in fleet.workers if worker.exit_code]
    if last.study.state != "done":
        raise _unfinished(last, fleet)
    for worker in failed:
        output.say(
            f"worker {worker.number} ended with exit code {worker.exit_code}: {worker.log}", options=options
        )
    name = last.study.name
    if not last.front.members:
        lacking, hint = nothing_deployable(last.front.rows, name)
        raise NothingFeasibleError(f"study {name!r} is done ({why}), and {lacking}", hint=hint)
    _print_front(options, last.front, why)


def _unfinished(last: live.Look, fleet: Fleet) -> KdsearchError:
    failed: Sequence[KdsearchError] = [worker.error() for worker in fleet.workers if worker.exit_code]
    if failed:
        return max(failed, key=lambda error: error.exit_code)
    return KdsearchError(
        f"the workers left study {last.study.name!r} before it was done",
        hint=f"how far it is: kdsearch study show {last.study.name}",
    )


def _print_front(options: Options, front: answers.Front, why: str) -> None:
    data = {
        "state": front.study.state,
        "ended": why,
        "trial_counts": dict(front.study.counts),
        **front.data(),
    }
    numbers = [row.number for row in front.members]
    members = [trial for trial in data["trials"] if trial["on_front"]]
    output.show(options, "run", data, human=front.human, ids=numbers, rows=members)
    if not options.json:
        name = front.study.name
        output.say(f"study {name} is done: {why}", options=options)
        if weak := answers.weak_teacher(front.study):
            output.say(weak, options=options)
        output.say(f"browse it: kdsearch dashboard {name}", options=options)
        output.say(f"export the best: kdsearch export {name} --to DIR", options=options)
