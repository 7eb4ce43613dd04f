"""`kdsearch worker start`: work on a study until its budget is spent or somebody says stop."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from kdsearch.cli import completing, controls, output, placing, workers
from kdsearch.cli.asked import export_asked
from kdsearch.cli.options import Options, group, with_options
from kdsearch.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UsageError

if TYPE_CHECKING:
    from kdsearch.worker.context import WorkerOptions

app = group("Start, list and drain workers, on this machine or others.")
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu or cuda:N; what students are trained on.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, max=256, help="Torch threads per worker.")]
PrepareThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--prepare-threads",
        min=1,
        max=256,
        help="Torch threads while it prepares the teacher and the others wait. [default: --threads]",
        show_default=False,
    ),
]


HangOption = Annotated[
    float,
    typer.Option(
        "--hang-after",
        min=1,
        metavar="SECONDS",
        help="A worker that makes no step for so long is ended; its trial goes on in another one. "
        "Below 300 a worker that waits for its turn in a crowd may be taken to hang.",
    ),
]
OutageOption = Annotated[
    float,
    typer.Option(
        "--outage",
        min=0,
        metavar="SECONDS",
        help="How long a database or artifact store that is away is waited for.",
    ),
]
StudyOption = Annotated[
    str,
    typer.Option(
        "--study", metavar="NAME", help="The study to work on.", autocompletion=completing.study_names
    ),
]
HANG_S = 900.0
OUTAGE_S = 3600.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Turns the first SIGINT or SIGTERM into a question that answers yes; the second ends the process."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._early: int | None = None
        self._woken: int | None = None

    def listen(self) -> None:
        """Take the signals over from now on."""
        self._woken, wake = os.pipe()
        for descriptor in (self._woken, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in STOPPING:
            signal.signal(number, self._receive)

    def seen(self) -> int | None:
        """The exit code after a signal, None before: for another thread, and at once.

        While the main thread is inside a library, Python does not call `_receive`; the pipe knows.
        """
        if self._early is None and self._woken is not None:
            with suppress(BlockingIOError):
                numbers = [number for number in os.read(self._woken, 64) if number in STOPPING]
                self._early = next(iter(numbers), None)
        number = self.received if self._early is None else self._early
        return None if number is None else _exit_code(number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(self.exit_code)
        self.received = number

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after the others, 0 after none."""
        return 0 if self.received is None else _exit_code(self.received)


def _exit_code(number: int) -> int:
    return EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED


def stop_question(signals: StopSignals, parent: int | None) -> Callable[[], bool]:
    """What a worker asks before every step: was there a signal, is the parent gone?"""
    return lambda: signals.received is not None or _is_gone(parent)


def leave_question(signals: StopSignals, parent: int | None) -> Callable[[], int | None]:
    """The exit code once it is to leave, None before: what another thread of the worker asks."""
    return lambda: EXIT_TERMINATED if _is_gone(parent) else signals.seen()


def _is_gone(parent: int | None) -> bool:
    return parent is not None and os.getppid() != parent


def checked_device(device: str) -> str:
    """A device as torch names it; raises UsageError. ``auto`` is left alone: torch is needed to know."""
    if device == "cuda":
        return "cuda:0"
    if device not in ("auto", "cpu") and not re.fullmatch(r"cuda:\d+", device):
        raise UsageError(f"no device is called {device!r}", hint="--device is auto, cpu or cuda:N")
    return device


def _present_device(device: str) -> str:
    """``auto`` made definite; raises UsageError for a GPU that torch does not see."""
    if device == "cpu":
        return device
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda:0" if found else "cpu"
    if int(device.removeprefix("cuda:")) >= found:
        seen = f"torch sees {found} GPUs" if found else "torch sees no GPU"
        raise UsageError(f"{device} is not there: {seen}", hint="--device cpu; kdsearch doctor shows devices")
    return device


@app.command()
@with_options
def start(
    options: Options,
    study: StudyOption,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    prepare_threads: PrepareThreadsOption = None,
    hang_after: HangOption = HANG_S,
    outage: OutageOption = OUTAGE_S,
    parent: Annotated[
        int | None, typer.Option("--parent", hidden=True, help="Stop when this process is gone.")
    ] = None,
) -> None:
    """Work on a study until its budget is spent.

    Any number may run, on any machine that reaches the storage and the artifacts. SIGINT or SIGTERM
    once puts the running trial away where another worker finds it; nothing is lost.

    Example: KDSEARCH_STORAGE=postgresql://db/kd kdsearch worker start --study sms-spam
    """
    faulthandler.enable()  # a crash inside a library says where
    signals = StopSignals()
    signals.listen()
    output.log_to_stderr()
    wanted = checked_device(device)
    with options.writing() as store:
        from kdsearch.worker.loop import work

        how = replace(
            _options_of(_present_device(wanted), threads, prepare_threads or threads),
            hang_s=hang_after,
            outage_s=outage,
            ended_by=leave_question(signals, parent),
            export=export_asked,
        )
        outcome = work(store, study, options=how, should_stop=stop_question(signals, parent))
    if outcome == "stopped" and signals.received is not None:
        raise typer.Exit(signals.exit_code)
    data = {"study": study, "outcome": outcome}
    output.show(options, "worker", data, human=lambda: [f"study {study} is {outcome}"], ids=[study])


def _options_of(device: str, threads: int, prepare_threads: int) -> WorkerOptions:
    from kdsearch.measure.hostlock import lock_folder
    from kdsearch.worker.context import WorkerOptions

    return WorkerOptions(
        device=device,
        threads=threads,
        prepare_threads=prepare_threads,
        lock_folder=lock_folder(os.environ),
    )


app.command("list")(with_options(workers.list_workers))
app.command("drain")(with_options(controls.drain))
app.command("script")(with_options(placing.script))
