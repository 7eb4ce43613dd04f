"""`kdsearch trial bench`: the latency of a student again, beside what was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kdsearch.cli import output
from kdsearch.cli.controls import TrialArgument
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.cli.progress import told

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdsearch.core.records import HardwareProfile, Latency

FIGURES = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "tokenize_p50_ms", "size_mb")
DeviceOption = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option("--device", help="What to measure on. [default: the study's]", show_default=False),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, max=256, help="Of the runtime. [default: the study's]")
]
QueriesOption = Annotated[
    int | None, typer.Option("--queries", min=10, help="At least so many. [default: the study's]")
]
SecondsOption = Annotated[
    float | None, typer.Option("--seconds", min=0, help="At least so long. [default: the study's]")
]


def bench(
    options: Options,
    study: StudyArgument,
    trial: TrialArgument,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, max=1024, help="Texts a query. [default: the study's]"),
    ] = None,
    queries: QueriesOption = None,
    seconds: SecondsOption = None,
) -> None:
    """Measure the latency of a trial's student again, beside what was recorded.

    On the study's texts and by its protocol, or another one; nothing is stored. Training on this host waits
    meanwhile.

    Example: kdsearch trial bench sms-spam 12 --threads 2
    """
    changes = {
        "device": device,
        "threads": threads,
        "batch_size": batch_size,
        "min_queries": queries,
        "min_seconds": seconds,
    }
    with options.reading() as store:
        from kdsearch.measure.hostlock import lock_folder
        from kdsearch.store import reads
        from kdsearch.worker.remeasure import protocol, remeasure

        row = reads.study(store.engine, study)
        found = reads.trial(store.engine, row.id, trial)
        spec = protocol(row.spec["latency"], changes)
        with told(options) as tell:
            tell(f"measuring the {found.student} of trial {trial}")
            now = remeasure(store, row, found, spec, lock_folder=lock_folder(os.environ))
    _show(options, study, trial, now, found.latency)


def _show(options: Options, study: str, trial: int, now: Latency, recorded: Latency | None) -> None:
    same = recorded is not None and recorded.profile == now.profile
    data = {
        "study": study,
        "trial": trial,
        "measured": now.to_json(),
        "recorded": None if recorded is None else recorded.to_json(),
        "same_profile": same,
        "noisy": now.noisy,
    }
    output.show(options, "bench", data, human=lambda: _human(now, recorded), ids=[f"{now.p90_ms:.4f}"])
    if options.json:
        return
    if now.noisy:
        output.say("noisy: something else ran on this host meanwhile; measure again", options=options)
    if not same:
        output.say("the profiles differ, so the figures are not to be compared", options=options)


def _human(now: Latency, recorded: Latency | None) -> Iterator[RenderableType]:
    from rich.text import Text

    table = output.table("", "measured", "recorded", "ratio", right=("measured", "recorded", "ratio"))
    for name in FIGURES:
        new, old = getattr(now, name), None if recorded is None else getattr(recorded, name)
        ratio = "" if not old else f"{new / old:.2f}"
        table.add_row(name.replace("_", " "), output.figure(new), output.figure(old), ratio)
    table.add_row("queries", str(now.num_queries), "" if recorded is None else str(recorded.num_queries), "")
    yield table
    yield Text(f"\nmeasured: {_profile(now.profile)}", style="dim")
    if recorded is not None:
        yield Text(f"recorded: {_profile(recorded.profile)}", style="dim")


def _profile(profile: HardwareProfile) -> str:
    threads = f"{profile.threads} {'thread' if profile.threads == 1 else 'threads'}"
    return (
        f"{profile.device_model}, {profile.device}, {profile.runtime}, {threads}, batch {profile.batch_size}"
    )
