"""`kdsearch export`: one student as a folder, proven equal to what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import output
from kdsearch.cli import within as ceilings
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.cli.progress import told
from kdsearch.cli.within import WithinOption
from kdsearch.core.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from kdsearch.cli.within import Within
    from kdsearch.export.manifest import Manifest
    from kdsearch.store.connect import Store
    from kdsearch.store.reads import StudyRow, TrialRow

WARNING = (
    "warning: whoever loads this folder with trust_remote_code=True runs the code in it; say so where you "
    "publish it, and let them pin a revision that they have read"
)


FormatOption = Annotated[
    str, typer.Option("--format", metavar="LIST", help="Of hf, onnx, onnx-int8, torch; commas between them.")
]
SelfContainedOption = Annotated[
    bool, typer.Option("--self-contained", help="Add code for transformers' trust_remote_code=True.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a folder that an export made before.")
]
PushOption = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub", metavar="REPO", help="Then upload it, e.g. owner/name.", show_default=False
    ),
]


def export(
    options: Options,
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to make.", show_default=False)],
    trial: Annotated[
        int | None, typer.Option("--trial", metavar="N", help="This trial.", show_default=False)
    ] = None,
    within: WithinOption = None,
    formats: FormatOption = "hf,onnx",
    self_contained: SelfContainedOption = False,
    overwrite: OverwriteOption = False,
    push_to_hub: PushOption = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
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
    from kdsearch.export.formats import parse

    asked, wanted = ceilings.parse(within), parse(formats)
    _check_targets(to, overwrite, push_to_hub)
    with options.reading() as store:
        row, chosen = _chosen(store, study, trial, asked)
        how = {"overwrite": overwrite, "formats": wanted, "self_contained": self_contained}
        manifest = _export(options, store, row, chosen, to, **how)
    if self_contained:
        output.say(WARNING, options=options)
    commit = None if push_to_hub is None else _push(options, to, push_to_hub, private=private)
    _show(options, manifest, to, commit)


def _check_targets(to: Path, overwrite: bool, repo: str | None) -> None:
    """Before anything is spent."""
    if to.exists() and not overwrite:
        raise ConflictError(f"{to} exists already", hint="choose another folder, or add --overwrite")
    if repo is not None:
        from kdsearch.export.hub import check_repo

        check_repo(repo)


def _chosen(store: Store, study: str, trial: int | None, asked: Within) -> tuple[StudyRow, TrialRow]:
    from kdsearch.store import reads

    row = reads.study(store.engine, study)
    if trial is not None:
        return row, reads.trial(store.engine, row.id, trial)
    trials, standings = reads.trials(store.engine, row.id), reads.standings(store.engine, row.id)
    return row, ceilings.best_of(trials, asked, study=study, standings=standings)


def _push(options: Options, folder: Path, repo: str, *, private: bool) -> str:
    from kdsearch.export.hub import push

    output.say(f"verifying, then uploading to {repo}", options=options)
    commit = push(folder, repo, private=private)
    output.say(f"uploaded: {commit}", options=options)
    return commit


def _export(
    options: Options, store: Store, study: StudyRow, trial: TrialRow, to: Path, **how: Any
) -> Manifest:
    output.say(f"exporting trial {trial.number} of {study.name} ({trial.student})", options=options)
    from kdsearch.export.bundle import export_student

    with told(options) as tell:
        return export_student(store, study, trial, to=to, on_progress=tell, **how)


def _show(options: Options, manifest: Manifest, to: Path, commit: str | None) -> None:
    if options.json:
        data = {
            "dir": str(to),
            "trial": manifest.trial,
            "manifest": manifest.to_json(),
            "commit": commit,
        }
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
