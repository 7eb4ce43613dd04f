"""`kdsearch trial list` and `kdsearch trial show`, and under this name what other modules do to trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from kdsearch.cli import answers, bench, compare, controls, enqueue, output
from kdsearch.cli import within as ceilings
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options, group, with_options
from kdsearch.cli.story import Story
from kdsearch.cli.within import Within, WithinOption
from kdsearch.core.errors import UsageError
from kdsearch.core.records import TrialState

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdsearch.core.records import Scores, Standing
    from kdsearch.store.reads import EpochRow, StudyRow, TrialRow

app = group("List, show, compare and repeat the trials of a study.")
STATES: tuple[str, ...] = get_args(TrialState)


def _state(text: str | None) -> str | None:
    if text is not None and text not in STATES:
        raise UsageError(f"no trial is ever {text!r}", hint=f"--state is one of {', '.join(STATES)}")
    return text


@app.command("list")
@with_options
def list_trials(
    options: Options,
    study: StudyArgument,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help=f"Only these: {', '.join(STATES)}.")
    ] = None,
    within: WithinOption = None,
    on_front: Annotated[bool, typer.Option("--front", help="Only those on the front.")] = False,
) -> None:
    """List the trials of a study.

    Example: kdsearch trial list sms-spam --state failed
    """
    wanted, asked = _state(state), ceilings.parse(within)
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        front = answers.Front.read(store.engine, row, asked)
    members = {member.number for member in front.members}
    rows = [
        trial
        for trial in front.rows
        if asked.admits(trial) and wanted in (None, trial.state) and (trial.number in members or not on_front)
    ]
    data: dict[str, Any] = {
        "study": study,
        "trials": [front.trial(trial, on_front=trial.number in members) for trial in rows],
    }
    output.show(
        options,
        "trials",
        data,
        human=lambda: answers.trials(row, rows, front=members, states=True) if rows else [],
        ids=(trial.number for trial in rows),
        rows=data["trials"],
    )
    if not rows and not options.json:
        output.say(_why_empty(study, some=bool(front.rows)), options=options)


def _why_empty(study: str, *, some: bool) -> str:
    if some:
        return f"no trial is like that; all of them: kdsearch trial list {study}"
    return f"no trials yet; to work on the study: kdsearch worker start --study {study}"


@app.command("show")
@with_options
def show_trial(
    options: Options,
    study: StudyArgument,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="The trial's number.", show_default=False)],
) -> None:
    """Show one trial: parameters, figures, learning curve, what was decided of it and why, who worked on it.

    Example: kdsearch trial show sms-spam 12
    """
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        found = reads.trial(store.engine, row.id, trial)
        story = Story(
            reads.epochs(store.engine, row.id, trial),
            reads.decisions(store.engine, row.id, trial),
            reads.attempts(store.engine, row.id, trial),
            [repeat for repeat in reads.repeats(store.engine, row.id) if repeat.number == trial],
        )
        front = answers.Front.read(store.engine, row, Within())
    on_front = trial in {member.number for member in front.members}
    data = {"study": study, **front.trial(found, on_front=on_front), **_details(found), **story.data()}
    standing = front.standings.get(trial)
    output.show(options, "trial", data, human=lambda: _human(row, found, standing, story), ids=[trial])


def _details(row: TrialRow) -> dict[str, Any]:
    return {
        "scores": None if row.scores is None else asdict(row.scores),
        "latency": None if row.latency is None else row.latency.to_json(),
        "best_epoch": row.best_epoch,
        "epochs_run": row.epochs_run,
        "rows_seen": row.rows_seen,
        "train_seconds": row.train_seconds,
        "teacher": None if row.teacher is None else asdict(row.teacher),
        "attempt": row.attempt,
        "worker": row.worker,
        "failure": None if row.failure is None else asdict(row.failure),
        "artifact": row.artifact,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
    }


def _human(
    study: StudyRow, row: TrialRow, standing: Standing | None, story: Story
) -> Iterable[RenderableType]:
    from rich.text import Text

    yield Text(f"trial {row.number} of {study.name}: {row.state}", style="bold")
    yield answers.trials_table(study, [row], params=False)
    yield Text(f"\nparameters: {answers.params_text(row)}")
    if row.origin:
        yield Text(f"chosen by: {row.origin}")
    if row.scores is not None:
        yield Text(_scores(row.scores))
    if standing is not None:
        yield Text(f"{study.quality_name}: {answers.standing_text(standing)}")
    if row.best_epoch is not None:
        yield Text(_effort(row))
    if row.teacher is not None:
        yield Text(f"teacher trained beside it: {_quality(study, row.teacher)}{_scores(row.teacher)}")
    if row.failure is not None:
        yield Text(f"\nfailed: {row.failure.message}", style="red")
    if story.epochs:
        yield ""
        yield _curve(study, story.epochs, row.best_epoch)
    yield from story.human()


def _effort(row: TrialRow) -> str:
    """Which epoch was kept, and what training took."""
    parts = [f"kept: epoch {row.best_epoch} of {row.epochs_run}", f"{row.rows_seen} rows seen"]
    parts += [] if row.train_seconds is None else [f"trained in {row.train_seconds:.1f} s"]
    parts += [] if row.peak_memory_mb is None else [f"{row.peak_memory_mb:.0f} MB of memory at most"]
    return "; ".join(parts)


def _quality(study: StudyRow, scores: Scores) -> str:
    """The objective, unless `_scores` says it anyway."""
    said = study.quality_name in ("accuracy", "macro_f1")
    return "" if said else f"{study.quality_name} {scores.quality:.4f}, "


def _scores(scores: Scores) -> str:
    parts = [f"accuracy {scores.accuracy:.4f}", f"macro-F1 {scores.macro_f1:.4f}"]
    parts += [] if scores.agreement is None else [f"agreement with the teacher {scores.agreement:.4f}"]
    parts += [] if scores.coverage is None else [f"coverage {scores.coverage:.4f}"]
    recall = ", ".join(f"{label} {share:.3f}" for label, share in scores.recall.items())
    return f"{', '.join(parts)}, recall: {recall}"


def _curve(study: StudyRow, epochs: Sequence[EpochRow], best: int | None) -> RenderableType:
    """The learning curve: rows since the trial began, and each weighted term where there are several."""
    terms = list(dict.fromkeys(name for epoch in epochs for name in epoch.losses if name != "total"))
    shown = terms if len(terms) > 1 else []
    figures = ("epoch", "rows seen", "loss", *shown, study.quality_name, "seconds")
    curve = output.table(figures[0], "stage", *figures[1:], right=figures)
    for epoch in epochs:
        losses = [output.figure(epoch.losses.get(name), 4) for name in ("total", *shown)]
        quality = output.figure(epoch.scores.quality if epoch.scores else None, 4)
        cells = (str(epoch.epoch), epoch.stage, str(epoch.rows_seen), *losses, quality)
        curve.add_row(*cells, output.figure(epoch.seconds, 1), style="bold" if epoch.epoch == best else "")
    return curve


app.command("compare")(with_options(compare.compare))
app.command("bench")(with_options(bench.bench))
app.command("enqueue")(with_options(enqueue.enqueue))
for control in (controls.retry, controls.rerun):
    app.command(control.__name__)(with_options(control))
