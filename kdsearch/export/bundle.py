"""Export one trial: the student read back from the artifact store, packed, proven, then published.

Everything is written into DIR.partial and compared with what was recorded. Only a folder that
passed becomes DIR, in one rename; one that did not becomes DIR.failed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdsearch.core.errors import ConflictError, UsageError, VerificationError
from kdsearch.data.prepared import Prepared
from kdsearch.export import formats as known
from kdsearch.export.manifest import MANIFEST, Manifest
from kdsearch.export.packing import Packing, Progress, Source, teacher_name
from kdsearch.store.connect import Store
from kdsearch.store.reads import StudyRow, TrialRow

__all__ = ["export_student", "teacher_name"]


def export_student(
    store: Store,
    study: StudyRow,
    trial: TrialRow,
    *,
    to: Path,
    overwrite: bool = False,
    formats: Sequence[str] = known.DEFAULT,
    self_contained: bool = False,
    on_progress: Progress = lambda _: None,
) -> Manifest:
    """Export a trial into a new folder, proven equal to what was measured.

    ``self_contained`` adds the code of the student's transformers model, which loads without kdsearch where
    remote code is trusted.

    Raises ConflictError if the folder exists (or, with ``overwrite``, is something else) or the trial has
    no student; VerificationError if the export is not what was measured; ArtifactError if the student
    cannot be read; UsageError for an unknown format.
    """
    to, formats = to.absolute(), _checked(formats, self_contained)
    store = store.of_study(study.artifacts_url)
    _check_target(to, overwrite)
    artifact, logits, prepared = _check_trial(study, trial)
    partial = to.with_name(to.name + ".partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory(prefix="kdsearch-export-") as work:
            source = Source(store, study, trial, artifact, logits, Prepared.load(store.blobs, prepared))
            packing = Packing(source, formats, self_contained, Path(work), on_progress)
            manifest = packing.into(partial)
    except VerificationError as error:
        raise _keep_failed(partial, to, error) from error
    except BaseException:
        _remove(partial)
        raise
    _publish(partial, to)
    return manifest


def _checked(formats: Sequence[str], self_contained: bool) -> tuple[str, ...]:
    names = known.checked(formats)
    if self_contained and known.HF not in names:
        raise UsageError("only the format hf is loaded by transformers", hint="add hf to the formats")
    return names


def _check_target(to: Path, overwrite: bool) -> None:
    if not to.exists():
        return
    if not overwrite:
        raise ConflictError(f"{to} exists already", hint="choose another folder, or add --overwrite")
    if not to.is_dir() or (any(to.iterdir()) and not (to / MANIFEST).is_file()):
        raise ConflictError(
            f"{to} is not an exported student, so it is not overwritten", hint="choose another folder"
        )


def _check_trial(study: StudyRow, trial: TrialRow) -> tuple[str, str, str]:
    """Artifact, validation logits and preparation, all of which a complete trial has."""
    if trial.state != "complete":
        raise ConflictError(
            f"trial {trial.number} of study {study.name!r} is {trial.state}: it has no student to export",
            hint=f"`kdsearch pareto {study.name}` lists the trials worth exporting",
        )
    if trial.artifact is None or trial.validation_logits is None or study.prepared is None:
        raise AssertionError(f"complete trial {trial.number} of {study.name!r} without its artifacts")
    return trial.artifact, trial.validation_logits, study.prepared


def _keep_failed(partial: Path, to: Path, error: VerificationError) -> VerificationError:
    failed = to.with_name(to.name + ".failed")
    _remove(failed)
    partial.rename(failed)
    hint = f"what was written is in {failed}; the trial itself is untouched, another one: --trial N"
    return VerificationError(f"the export is not what was measured: {error.what}", hint=hint)


def _publish(partial: Path, to: Path) -> None:
    if to.exists():
        old = to.with_name(to.name + ".old")
        _remove(old)
        to.rename(old)
        partial.rename(to)
        _remove(old)
    else:
        partial.rename(to)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
