"""What steers a search: study pause, resume, stop, extend, delete; trial retry, rerun; worker drain."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kdsearch.cli import output
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.core.errors import EXIT_INTERRUPTED, UsageError

TrialArgument = Annotated[
    int, typer.Argument(metavar="TRIAL", help="The trial's number.", show_default=False)
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def _done(options: Options, thing: str, name: object, text: str, **data: object) -> None:
    """Say what was done; -q prints the name of what it was done to."""
    output.show(options, thing, data, human=lambda: [text], ids=[name])


def _next(options: Options, text: str) -> None:
    if not options.json:
        output.say(text, options=options)


# ---------------------------------------------------------------- studies


def pause(options: Options, study: StudyArgument) -> None:
    """Begin nothing new in a study; what runs goes on to its end.

    Example: kdsearch study pause sms-spam
    """
    with options.writing() as store:
        from kdsearch.store import controls

        changed = controls.pause(store.engine, study)
    text = f"study {study} is paused" if changed else f"study {study} was paused already"
    _done(options, "study_state", study, text, study=study, state="paused", changed=changed)
    _next(options, f"let it go on: kdsearch study resume {study}")


def resume(options: Options, study: StudyArgument) -> None:
    """Let a paused study go on.

    Example: kdsearch study resume sms-spam
    """
    with options.writing() as store:
        from kdsearch.store import controls

        changed = controls.resume(store.engine, study)
    text = f"study {study} goes on" if changed else f"study {study} was not paused"
    _done(options, "study_state", study, text, study=study, state="open", changed=changed)
    _next(options, f"work on it: kdsearch worker start --study {study}")


def stop(options: Options, study: StudyArgument) -> None:
    """End a study now: running trials are stopped, and its front is what it is.

    Its workers let go at their next beat. `study extend` opens it again.

    Example: kdsearch study stop sms-spam
    """
    with options.writing() as store:
        from kdsearch.store import controls

        stopped = controls.stop(store.engine, study)
    which = f"; stopped: {', '.join(map(str, stopped))}" if stopped else ""
    _done(
        options,
        "study_state",
        study,
        f"study {study} is done{which}",
        study=study,
        state="done",
        stopped=stopped,
    )
    _next(options, f"its front: kdsearch pareto {study}; to go on: kdsearch study extend {study} --trials 20")


def extend(
    options: Options,
    study: StudyArgument,
    trials: Annotated[int | None, typer.Option("--trials", metavar="N", help="Further trials.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", metavar="N", help="Further epochs.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", metavar="H", help="Further hours.")] = None,
    gpu_hours: Annotated[
        float | None, typer.Option("--gpu-hours", metavar="H", help="Further GPU hours.")
    ] = None,
    failed: Annotated[
        int | None, typer.Option("--failed", metavar="N", help="Failures that it may have beside the others.")
    ] = None,
) -> None:
    """Add to the budget of a study; one that was done is open again.

    Example: kdsearch study extend sms-spam --trials +20
    """
    asked = {"trials": trials, "epochs": epochs, "hours": hours, "gpu_hours": gpu_hours, "failed": failed}
    with options.writing() as store:
        from kdsearch.cli.spent import budget_data, budget_text
        from kdsearch.store import controls, reads

        controls.extend(
            store.engine, study, trials=trials, epochs=epochs, hours=hours, gpu_hours=gpu_hours, failed=failed
        )
        row = reads.study(store.engine, study)
    added = {name: more for name, more in asked.items() if more is not None}
    text = f"study {study} is {row.state}: {budget_text(row)}"
    data = {"study": study, "state": row.state, "added": added, "budget": budget_data(row)}
    _done(options, "study_extended", study, text, **data)
    _next(options, f"work on it: kdsearch worker start --study {study}")


def delete(
    options: Options,
    study: StudyArgument,
    with_artifacts: Annotated[
        bool,
        typer.Option("--with-artifacts", help="Its trained students, too, and all that nothing else needs."),
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Delete a study and its trials, in Optuna's tables too.

    Asks first; without a terminal it needs --yes. Exported folders stay.

    Example: kdsearch study delete sms-spam --with-artifacts --dry-run
    """
    with options.writing() as store:
        from kdsearch.store import controls, reads

        row = reads.study(store.engine, study)
        working = sum(worker.state == "active" for worker in reads.workers(store.engine, row.id))
        num_trials, size = sum(row.counts.values()), controls.freed(store, study) if with_artifacts else 0
        what = _what(study, num_trials, size if with_artifacts else None, working)
        if not dry_run:
            _confirm(f"delete {what}?", yes=yes)
            size = controls.delete(store, study, artifacts=with_artifacts)
    text = f"{'would delete' if dry_run else 'deleted'} {what}"
    data = {"study": study, "deleted": not dry_run, "trials": num_trials, "artifact_bytes": size}
    _done(options, "study_deleted", study, text, **data)
    if dry_run:
        _next(options, f"do it: kdsearch study delete {study}{' --with-artifacts' if with_artifacts else ''}")


def _what(study: str, num_trials: int, size: int | None, working: int) -> str:
    parts = [f"study {study} with {num_trials} trials"]
    parts += [] if size is None else [f"{size / 1e6:.1f} MB of artifacts"]
    parts += [f"which {working} workers work on"] if working else []
    return ", ".join(parts)


def _confirm(question: str, *, yes: bool) -> None:
    """Raises UsageError where there is nobody to be asked; a no is as good as Ctrl-C."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"nobody is there to be asked: {question}", hint="--yes says so beforehand")
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        output.say("nothing was done")
        raise typer.Exit(EXIT_INTERRUPTED)


# ---------------------------------------------------------------- trials and workers


def retry(options: Options, study: StudyArgument, trial: TrialArgument) -> None:
    """Let a failed trial be tried again, under its own number.

    Example: kdsearch trial retry sms-spam 7
    """
    with options.writing() as store:
        from kdsearch.store import controls

        controls.retry(store.engine, study, trial)
    _done(options, "trial_waiting", trial, f"trial {trial} waits for a worker", study=study, trial=trial)
    _next(options, f"work on it: kdsearch worker start --study {study}")


def rerun(
    options: Options,
    study: StudyArgument,
    trial: TrialArgument,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="LIST", help="Seeds to train it with, e.g. 1,2,3.")
    ] = "1",
) -> None:
    """Train a complete trial again with further seeds.

    Then its quality is the mean over all seeds, and its interval covers them. Seeds it had are left out.

    Example: kdsearch trial rerun sms-spam 12 --seeds 4,5
    """
    wanted = _seeds(seeds)
    with options.writing() as store:
        from kdsearch.store import controls

        count = controls.rerun(store.engine, study, trial, wanted)
    text = (
        f"trial {trial} waits to be trained again with {count} seeds"
        if count
        else "it had those seeds already"
    )
    _done(options, "trial_rerun", trial, text, study=study, trial=trial, trainings=count)
    if count:
        _next(options, f"work on it: kdsearch worker start --study {study}")


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) < 2**31 for part in parts):
        raise UsageError(f"--seeds {text!r} is no list of seeds", hint="for example: --seeds 1,2,3")
    return [int(part) for part in parts]


def drain(
    options: Options,
    worker: Annotated[
        str, typer.Argument(metavar="WORKER", help="As `worker list` calls it.", show_default=False)
    ],
) -> None:
    """Ask a worker to put its trial away and leave; another one goes on with it.

    Example: kdsearch worker drain host-4711-8a3f
    """
    with options.writing() as store:
        from kdsearch.store import controls

        controls.drain(store.engine, worker)
    _done(options, "worker_draining", worker, f"worker {worker} leaves at its next beat", worker=worker)
