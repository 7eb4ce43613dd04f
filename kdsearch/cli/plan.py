"""`kdsearch study plan`: what a study will cost, before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import output
from kdsearch.cli.options import Options
from kdsearch.cli.progress import told
from kdsearch.cli.reading import FileArgument, loaded
from kdsearch.cli.report import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdsearch.core.spec import BudgetSpec
    from kdsearch.worker.estimate import Estimate


def plan(
    options: Options,
    file: FileArgument,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="How many will work.")] = 1,
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="cpu or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Torch threads per worker.")] = 1,
) -> None:
    """Estimate what a study will cost: space, teacher, trials, time and disk.

    Reads the texts, and probes teacher and students for some seconds on this machine; nothing is stored.
    What is assumed is said.

    Example: kdsearch study plan study.yaml --workers 4
    """
    found = loaded(file)
    from kdsearch.worker.estimate import ASSUMED, estimate

    with told(options) as tell:
        made = estimate(found, device=device, threads=threads, on_progress=tell)
    spec = found.spec
    seconds = in_all(made, workers)
    data = {
        "study": spec.name,
        **_plain(made),
        "workers": workers,
        "hours": seconds / 3600,
        "budget": spec.budget.model_dump(),
        "ends_by_hours": spec.budget.hours is not None and spec.budget.hours * 3600 < seconds,
        "assumed": list(ASSUMED),
    }
    output.show(
        options,
        "plan",
        data,
        human=lambda: _human(spec.name, made, workers, spec.budget, ASSUMED),
        ids=[spec.name],
    )
    if not options.json:
        output.say(f"run it: kdsearch run {file}{_more(workers)}", options=options)


def in_all(made: Estimate, workers: int) -> float:
    """Seconds until the study is done: preparing is done by one, trials by all."""
    return made.training_s + made.caching_s + made.trials_s / workers


def _more(workers: int) -> str:
    return f" --workers {workers}" if workers > 1 else ""


def _plain(made: Estimate) -> dict[str, Any]:
    kinds = [{**asdict(kind), "rates": kind.rates and asdict(kind.rates)} for kind in made.kinds]
    return {**asdict(made), "kinds": kinds, "disk_mb": made.disk_mb}


def _human(
    name: str, made: Estimate, workers: int, budget: BudgetSpec, assumed: tuple[str, ...]
) -> Iterator[RenderableType]:
    from rich.text import Text

    rows = ", ".join(f"{count} {pool}" for pool, count in made.rows.items())
    yield Text(f"study {name}", style="bold")
    yield Text(f"texts    {rows}; {made.num_labels} labels, {made.mean_tokens:.0f} tokens a text")
    yield Text(f"space    {_space(made)}")
    yield Text(f"teacher  {_teacher(made)}")
    again = f", and up to {made.repeats} trainings of finalists" if made.repeats else ""
    yield Text(f"trials   {made.trials}{again}; the first {made.first_trials} are not the sampler's choice\n")
    yield _kinds(made)
    total = f"about {duration(in_all(made, workers))} with {_counted(workers, 'worker')}"
    yield Text(f"\ntime     {total}", style="bold")
    if budget.hours is not None:
        yield Text(f"         the budget ends it after {budget.hours:g} h")
    parts = f"{made.prepared_mb:.0f} prepared, {made.students_mb:.0f} students"
    yield Text(f"disk     about {made.disk_mb:.0f} MB: {parts}")
    where = f"{made.device}, {_counted(made.threads, 'thread')}"
    yield Text(f"\nmeasured on this machine ({where}): rows a second. Assumed:", style="dim")
    yield from (Text(f"- {text}", style="dim") for text in assumed)


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _space(made: Estimate) -> str:
    space = made.space
    real = f", and {len(space.real)} parameters with real values" if space.real else ""
    return f"{space.combinations:,} combinations{real}; {space.architectures:,} architectures"


def _teacher(made: Estimate) -> str:
    if made.teacher is None:
        return "its logits are given"
    trained = f"{duration(made.training_s)} of training, " if made.training_s else "used as it is; "
    size = f"{made.teacher.num_params / 1e6:.1f} M parameters"
    return f"{trained}{duration(made.caching_s)} of answering; {size}, {made.teacher.reading:.0f} rows/s read"


def _kinds(made: Estimate) -> RenderableType:
    from rich.text import Text

    figures = ("MB", "rows/s learned", "a trial")
    table = output.table("student", *figures, right=figures)
    for kind in made.kinds:
        if kind.rates is None:
            table.add_row(kind.name, "-", "-", Text(f"not probed: {kind.why}"))
        else:
            cells = (f"{kind.rates.size_mb:.2f}", f"{kind.rates.learning:.0f}", duration(kind.trial_s))
            table.add_row(kind.name, *cells)
    return table
