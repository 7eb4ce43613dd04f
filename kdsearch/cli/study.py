"""`kdsearch study validate | create | list | show`, and under this name what other modules do to studies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kdsearch.cli import answers, controls, difference, output, plan, report
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options, group, with_options
from kdsearch.cli.progress import told
from kdsearch.cli.reading import FileArgument, loaded
from kdsearch.cli.spent import budget_data, budget_text, finished, spent_data, why_ended
from kdsearch.cli.within import Within
from kdsearch.core.errors import KdsearchError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdsearch.core.spec import StudySpec, VariantSpec
    from kdsearch.data.prepared import HistoricalTeacher, Prepared
    from kdsearch.store.connect import Store
    from kdsearch.store.reads import StudyRow, TrialRow

app = group("Plan, create, show, steer and report studies.")


@app.command()
@with_options
def validate(options: Options, file: FileArgument) -> None:
    """Check a study file; every mistake is shown with its line.

    Example: kdsearch study validate study.yaml
    """
    found = loaded(file)
    spec = found.spec
    data = {"study": spec.name, "file": str(file), "sha256": found.sha256, **_plan(spec)}
    output.show(options, "validate", data, human=lambda: [_valid(spec, file)], ids=[spec.name])
    if not options.json:
        output.say(f"run it: kdsearch run {file}", options=options)


def _plan(spec: StudySpec) -> dict[str, Any]:
    def kinds(variants: tuple[VariantSpec, ...] | None) -> list[str] | None:
        return None if variants is None else [variant.type for variant in variants]

    return {
        "students": kinds(spec.students),
        "schemes": kinds(spec.schemes),
        "quality": spec.objectives.quality,
        "latency": spec.objectives.latency,
        "budget": spec.budget.model_dump(),
    }


def _valid(spec: StudySpec, file: Path) -> RenderableType:
    from rich.text import Text

    plan = _plan(spec)
    students = ", ".join(plan["students"] or ["all kinds"])
    schemes = ", ".join(plan["schemes"] or ["none", "offline"])
    return Text.assemble(
        (f"{file} is valid", "bold green"),
        f": study {spec.name}, {spec.budget.trials} trials\n",
        f"students: {students}; schemes: {schemes}\n",
        f"objectives: {spec.objectives.quality}, {spec.objectives.latency}",
    )


@app.command()
@with_options
def create(
    options: Options,
    file: FileArgument,
    if_exists: Annotated[
        Literal["error", "resume"],
        typer.Option("--if-exists", help="What to do with a study of that name, made from the same file."),
    ] = "error",
    for_run: Annotated[
        bool, typer.Option("--for-run", hidden=True, help="The next command is known.")
    ] = False,
) -> None:
    """Create a study without working on it yet; its texts and teacher are stored.

    Example: kdsearch study create study.yaml
    """
    output.log_to_stderr()
    found = loaded(file)
    with options.writing() as store:
        from kdsearch.worker.create import create as create_new
        from kdsearch.worker.create import create_or_resume

        make = create_or_resume if if_exists == "resume" else create_new
        with told(options) as tell:
            record = make(store, found, on_progress=tell)
    start = f"kdsearch worker start --study {record.name}"
    data = {"study": record.name, "sha256": record.spec_sha256, "next": start}
    output.show(options, "study_created", data, human=lambda: [record.name], ids=[record.name])
    if not options.json and not for_run:
        output.say(f"work on it: {start}", options=options)


@app.command("list")
@with_options
def list_studies(options: Options) -> None:
    """List the studies, newest first.

    Example: kdsearch study list
    """
    rows: list[StudyRow] = []
    if not options.nothing_stored:
        with options.reading() as store:
            from kdsearch.store import reads

            rows = list(reads.studies(store.engine))
    data = {"studies": [_summary(row) for row in rows]}
    output.show(
        options,
        "studies",
        data,
        human=lambda: [_table(rows)] if rows else [],
        ids=(row.name for row in rows),
        rows=data["studies"],
    )
    if not rows and not options.json:
        output.say("no studies yet; launch one: kdsearch run study.yaml", options=options)


def _summary(row: StudyRow) -> dict[str, Any]:
    return {
        "study": row.name,
        "state": row.state,
        "quality": row.quality_name,
        "latency": row.latency_name,
        "trials": dict(row.counts),
        "budget": budget_data(row),
        "spent": spent_data(row),
        "active_seconds": row.active_seconds,
        "prepared": row.prepared is not None,
        "created_at": row.created_at,
    }


def _table(rows: list[StudyRow]) -> RenderableType:
    made = output.table("study", "state", "trials", "running", "failed", "quality", "created", right=_FIGURES)
    for row in rows:
        made.add_row(
            row.name,
            row.state,
            f"{finished(row)}/{row.budget_trials}",
            str(row.counts.get("running", 0)),
            str(row.counts.get("failed", 0)),
            row.quality_name,
            f"{row.created_at:%Y-%m-%d %H:%M}",
        )
    return made


_FIGURES = ("trials", "running", "failed")


@app.command("show")
@with_options
def show_study(
    options: Options,
    study: StudyArgument,
    file: Annotated[bool, typer.Option("--file", help="Print the study file it was created from.")] = False,
) -> None:
    """Show one study: how far it is, its teacher, its workers, its best trials.

    Example: kdsearch study show sms-spam
    """
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        front = answers.Front.read(store.engine, row, Within())
        why = why_ended(store.engine, row) if row.state == "done" else ""
        workers = [asdict(w) for w in reads.workers(store.engine, row.id) if w.state == "active"]
        preparation = asdict(reads.preparation(store.engine, row.id))
        prepared = _prepared(store, row)
    data = {
        **_summary(row),
        "ended": why or None,
        "teacher": answers.teacher_data(row),
        "historical": [] if prepared is None else [_historical(teacher) for teacher in prepared.historical],
        "oov_share": {} if prepared is None else dict(prepared.oov_share),
        "sha256": row.spec_sha256,
        "spec": row.spec,
        "preparation": preparation,
        "workers": workers,
        "front": [trial.number for trial in front.members],
    }
    human = (
        (lambda: [row.spec_text.rstrip("\n")])
        if file
        else (lambda: _human(row, front, preparation, workers, prepared, why))
    )
    output.show(options, "study", data, human=human, ids=[row.name])
    if not options.json and not file:
        output.say(_next(row, front.rows, workers), options=options)


def _prepared(store: Store, row: StudyRow) -> Prepared | None:
    """What the preparation left, where it is done and its artifacts can be read from here."""
    from kdsearch.data.prepared import Prepared

    if row.prepared is None:
        return None
    try:
        return Prepared.load(store.of_study(row.artifacts_url).blobs, row.prepared)
    except KdsearchError:
        return None


def _historical(teacher: HistoricalTeacher) -> dict[str, Any]:
    return {"teacher": teacher.name, "weight": teacher.weight, "quality": teacher.scores.quality}


def _human(
    row: StudyRow,
    front: answers.Front,
    preparation: dict[str, Any],
    workers: list[dict[str, Any]],
    prepared: Prepared | None,
    why: str,
) -> Iterable[RenderableType]:
    from rich.text import Text

    counts = ", ".join(f"{number} {state}" for state, number in row.counts.items() if number)
    yield Text(f"{row.name}: {row.state}", style="bold")
    yield Text(f"trials: {finished(row)} of {row.budget_trials} ended{f' ({counts})' if counts else ''}")
    if why:
        yield Text(f"it ended because {why}")
    yield Text(f"budget: {budget_text(row)}")
    yield Text(f"objectives: {row.quality_name}, {row.latency_name}")
    yield Text(f"search: {_search(row.spec.get('search') or {})}")
    yield Text(f"texts: {', '.join(_pools(row.spec.get('data') or {}))}")
    yield Text(f"teacher: {_teacher(row, preparation)}")
    if prepared is not None:
        yield from map(Text, _offered(row, prepared))
    yield Text(f"workers: {len(workers)} at work, {row.active_seconds / 3600:.2f} hours worked")
    if front.members:
        yield ""
        yield from answers.trials(row, front.members, standings=front.standings)


def _search(spec: Mapping[str, Any]) -> str:
    """What proposes and what stops."""
    plateau = ", ends at a plateau" if spec.get("plateau") else ""
    return f"sampler {spec.get('sampler')}, pruner {spec.get('pruner', 'none')}{plateau}"


def _offered(row: StudyRow, prepared: Prepared) -> Iterator[str]:
    """What else there is to learn from."""
    for teacher in prepared.historical:
        yield f"historical teacher: {teacher.name}, {row.quality_name} {teacher.scores.quality:.4f}"
    for table, share in prepared.oov_share.items():
        yield f"vectors: {table} has none for {share:.1%} of the running tokens of the training pools"


def _pools(data: Mapping[str, Any]) -> Iterator[str]:
    """Where each pool comes from, as the study file has it."""
    for name in ("train", "validation", "test", "unlabelled"):
        if source := data.get(name):
            yield f"{name} {source['path']}{_cut(source)}"
    if augmented := data.get("augmented"):
        yield f"augmented ({augmented['times']} of each training text)"


def _cut(source: Mapping[str, Any]) -> str:
    """How a pool is cut down, and what is done to its labels."""
    cuts = [
        f"{len(source['keep_labels'])} of the labels" if source.get("keep_labels") else "",
        f"up to {source['per_class']} of each label" if source.get("per_class") else "",
        f"first {source['limit']} rows" if source.get("limit") else "",
        f"{source['label_noise']:.0%} of the labels wrong" if source.get("label_noise") else "",
    ]
    said = ", ".join(filter(None, cuts))
    return f" ({said})" if said else ""


def _teacher(row: StudyRow, preparation: dict[str, Any]) -> str:
    """Its figures once it is prepared, before that how far the preparation is."""
    if preparation["state"] == "done" and row.teacher is not None:
        return "\n".join(filter(None, (answers.teacher_text(row), answers.weak_teacher(row))))
    progress = preparation.get("error") or preparation.get("progress") or ""
    return f"{preparation['state']}{f' ({progress})' if progress else ''}"


def _next(row: StudyRow, trials: Iterable[TrialRow], workers: list[dict[str, Any]]) -> str:
    if row.state == "paused":
        return f"it is paused; let it go on: kdsearch study resume {row.name}"
    if row.state == "open" and not workers:
        return f"nobody works on it; to: kdsearch worker start --study {row.name}"
    if any(trial.state == "failed" for trial in trials):
        return f"what failed: kdsearch trial list {row.name} --state failed"
    return f"its trials: kdsearch trial list {row.name}"


app.command("plan")(with_options(plan.plan))
app.command("diff")(with_options(difference.diff))
app.command("report")(with_options(report.report))
for control in (controls.pause, controls.resume, controls.stop, controls.extend, controls.delete):
    app.command(control.__name__)(with_options(control))
