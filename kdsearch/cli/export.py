"""`kdsearch export`: one student as a folder, proven equal to what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdsearch.cli import output
from kdsearch.cli import within as ceilings
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.cli.within import WithinOption
from kdsearch.core.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from kdsearch.export.manifest import Manifest
    from kdsearch.store.connect import Store
    from kdsearch.store.reads import StudyRow, TrialRow


def export(
    options: Options,
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to make.", show_default=False)],
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="N", help="This trial.", show_default=False)
    ] = None,
    within: WithinOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder that an export made before.")
    ] = False,
) -> None:
    """Export a student, proven equal to what was measured.

    Without --trial, the best quality within the study's constraints and the given ceilings. The folder
    loads in transformers (after `import kdsearch.hf`), in onnxruntime, and in `kdsearch predict`. Its
    weights, ONNX graph and tokenizer are read back and compared first: exit code 7, and DIR.failed, if
    they are not what was measured.

    Example: kdsearch export sms-spam --to student --within latency_ms=5
    """
    if trial is not None and within:
        raise UsageError("--trial and --within exclude each other", hint="leave one of them out")
    asked = ceilings.parse(within)
    if to.exists() and not overwrite:
        raise ConflictError(f"{to} exists already", hint="choose another folder, or add --overwrite")
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        if trial is None:
            trials, standings = reads.trials(store.engine, row.id), reads.standings(store.engine, row.id)
            chosen = ceilings.best_of(trials, asked, study=study, standings=standings)
        else:
            chosen = reads.trial(store.engine, row.id, trial)
        manifest = _export(options, store, row, chosen, to, overwrite)
    _show(options, manifest, to)


def _export(
    options: Options, store: Store, study: StudyRow, trial: TrialRow, to: Path, overwrite: bool
) -> Manifest:
    output.say(f"exporting trial {trial.number} of {study.name} ({trial.student})", options=options)
    from kdsearch.export.bundle import export_student

    def progress(text: str) -> None:
        output.say(text, options=options)

    return export_student(store, study, trial, to=to, overwrite=overwrite, on_progress=progress)


def _show(options: Options, manifest: Manifest, to: Path) -> None:
    if options.json:
        data = {"dir": str(to), "trial": manifest.trial, "manifest": manifest.to_json()}
        output.show(options, "export", data, human=list)
        return
    output.say(_summary(manifest), options=options)
    output.write(str(to))


def _summary(manifest: Manifest) -> str:
    metrics, timing = manifest.metrics, manifest.latency
    low, high = metrics.validation.interval
    parts = [
        f"{metrics.objective} {metrics.validation.scores.quality:.4f} on validation "
        f"(95 % {low:.4f} to {high:.4f})"
    ]
    if metrics.test is not None:
        parts.append(f"{metrics.test.scores.quality:.4f} on test")
    if timing.student is not None:
        parts.append(f"{timing.student.at(timing.objective):.3f} ms")
    if timing.speedup is not None:
        parts.append(f"{timing.speedup:.1f} times faster than the teacher")
    return "exported: " + ", ".join(parts)
