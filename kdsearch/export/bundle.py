"""Export one trial: the student read back from the artifact store, packed, proven, then published.

Everything is written into DIR.partial and compared with what was recorded. Only a folder that
passed becomes DIR, in one rename; one that did not becomes DIR.failed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdsearch import __version__
from kdsearch.core.blobs import get_tree
from kdsearch.core.errors import ConflictError, VerificationError
from kdsearch.data.dataset import load_saved
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared, Vocabulary
from kdsearch.export.card import card
from kdsearch.export.evaluate import Remeasured, load_pool, read_test, remeasure
from kdsearch.export.folder import reload_student, write_student
from kdsearch.export.manifest import (
    CARD,
    MANIFEST,
    ONNX,
    TOKENIZER,
    Lineage,
    Manifest,
    Metrics,
    Timing,
    Verification,
    hash_files,
    write_manifest,
)
from kdsearch.export.predict import open_session, open_tokenizer
from kdsearch.export.verify import (
    TOLERANCE,
    Parity,
    Run,
    check_parity,
    check_tokenizer,
    fail,
    session_run,
    student_run,
)
from kdsearch.store.connect import Store
from kdsearch.store.reads import StudyRow, TrialRow
from kdsearch.store.studies import find_study
from kdsearch.students.building import SavedStudent, load_student, wants
from kdsearch.teachers.source import load_tokenizer

Progress = Callable[[str], None]
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "onnx", "onnxruntime", "numpy")


def export_student(
    store: Store,
    study: StudyRow,
    trial: TrialRow,
    *,
    to: Path,
    overwrite: bool = False,
    on_progress: Progress = lambda _: None,
) -> Manifest:
    """Export a trial into a new folder, proven equal to what was measured.

    Raises ConflictError if the folder exists (or, with ``overwrite``, is something else) or the trial has
    no student; VerificationError if the export is not what was measured; ArtifactError if the student
    cannot be read.
    """
    to = to.absolute()
    store = store.of_study(study.artifacts_url)
    _check_target(to, overwrite)
    artifact, logits, prepared = _check_trial(study, trial)
    partial = to.with_name(to.name + ".partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory(prefix="kdsearch-export-") as work:
            export = _Export(store, study, trial, artifact, logits, Prepared.load(store.blobs, prepared))
            manifest = export.into(partial, Path(work), on_progress)
    except VerificationError as error:
        raise _keep_failed(partial, to, error) from error
    except BaseException:
        _remove(partial)
        raise
    _publish(partial, to)
    return manifest


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


@dataclass(frozen=True)
class _Export:
    store: Store
    study: StudyRow
    trial: TrialRow
    artifact: str
    logits: str
    prepared: Prepared

    def into(self, folder: Path, work: Path, on_progress: Progress) -> Manifest:
        """Fill the folder, prove it, and describe it."""
        on_progress(f"reading trial {self.trial.number}")
        saved = load_student(get_tree(self.store.blobs, self.artifact, work / "student"))
        if saved.labels != self.prepared.labels:
            raise fail(f"the student's labels are {saved.labels}, the study's {self.prepared.labels}")
        vocabulary = self.prepared.vocabulary(wants(saved.student.NAME, saved.student.params).vocabulary)
        tokenizer = load_tokenizer(get_tree(self.store.blobs, vocabulary.tokenizer, work / "tokenizer"))
        on_progress("writing weights, tokenizer and ONNX graph")
        write_student(folder, saved, tokenizer)
        metrics, verification = self._prove(folder, saved, vocabulary, on_progress)
        manifest = self._manifest(saved, vocabulary, metrics, verification)
        (folder / CARD).write_text(card(manifest), encoding="utf-8")
        manifest = replace(manifest, files=hash_files(folder))
        write_manifest(folder, manifest)
        return manifest

    def _prove(
        self, folder: Path, saved: SavedStudent, vocabulary: Vocabulary, on_progress: Progress
    ) -> tuple[Metrics, Verification]:
        run = student_run(reload_student(folder, saved))
        on_progress("evaluating the exported weights on the validation pool")
        again = self._remeasure(run, vocabulary)
        on_progress("comparing ONNX with torch, and the tokenizer with the training's")
        parity = self._parity(folder, run, vocabulary)
        num_texts = self._check_tokenizer(folder, vocabulary)
        test, reads = read_test(
            run,
            self.store,
            self.prepared,
            vocabulary,
            study_id=self.study.id,
            trial=self.trial.number,
            objective=self.study.quality_name,
        )
        metrics = Metrics(
            objective=self.study.quality_name,
            validation=again.evaluation,
            test=test,
            test_reads=reads,
            teacher=None if self.study.teacher is None else self.study.teacher.scores,
        )
        return metrics, _verification(again, parity, num_texts)

    def _remeasure(self, run: Run, vocabulary: Vocabulary) -> Remeasured:
        if self.trial.scores is None:
            raise AssertionError(f"complete trial {self.trial.number} without scores")
        return remeasure(
            run,
            self.store.blobs,
            self.prepared,
            vocabulary,
            objective=self.study.quality_name,
            recorded=self.trial.scores,
            logits=self.logits,
        )

    def _parity(self, folder: Path, run: Run, vocabulary: Vocabulary) -> Parity:
        return check_parity(
            run,
            session_run(open_session(folder / ONNX)),
            load_pool(self.store.blobs, vocabulary, "validation"),
            vocab_size=vocabulary.vocab_size,
            max_length=self.prepared.max_length,
            pad_id=vocabulary.pad_id,
            num_labels=len(self.prepared.labels),
        )

    def _check_tokenizer(self, folder: Path, vocabulary: Vocabulary) -> int:
        record = find_study(self.store.engine, self.study.name)
        dataset = load_saved(self.store.blobs, Inputs.load(self.store.blobs, record.dataset_sha256).dataset)
        return check_tokenizer(
            open_tokenizer(folder / TOKENIZER, self.prepared.max_length),
            dataset.pools["validation"].texts,
            load_pool(self.store.blobs, vocabulary, "validation"),
        )

    def _manifest(
        self, saved: SavedStudent, vocabulary: Vocabulary, metrics: Metrics, verification: Verification
    ) -> Manifest:
        study, trial, prepared = self.study, self.trial, self.prepared
        record = find_study(self.store.engine, study.name)
        return Manifest(
            study=study.name,
            study_sha256=study.spec_sha256,
            trial=trial.number,
            student=saved.student.NAME,
            scheme=trial.scheme,
            params=trial.params,
            labels=saved.labels,
            max_length=prepared.max_length,
            pad_id=vocabulary.pad_id,
            metrics=metrics,
            latency=Timing(
                objective=study.latency_name,
                student=trial.latency,
                teacher=None if study.teacher is None else study.teacher.latency,
            ),
            lineage=Lineage(
                artifact=self.artifact,
                data_fingerprint=record.data_fingerprint,
                teacher=teacher_name(study.spec["teacher"]),
                teacher_fingerprint=prepared.teacher_fingerprint,
            ),
            verification=verification,
            versions=_versions(),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            files={},
        )


def _verification(again: Remeasured, parity: Parity, num_texts: int) -> Verification:
    return Verification(
        tolerance=TOLERANCE,
        stored_diff=again.stored_diff,
        onnx_diff=parity.onnx_diff,
        padding_diff=parity.padding_diff,
        num_cases=parity.num_cases,
        num_rows=parity.num_rows,
        num_texts=num_texts,
        quality_diff=again.quality_diff,
    )


def teacher_name(spec: Mapping[str, Any]) -> str:
    """The teacher as the study names it; of a path on the launching machine only the folder's name."""
    if spec.get("logits") is not None:
        return f"logits given as {Path(spec['logits']).name}"
    model = spec.get("model")
    if model is None:
        build = spec["build"]
        return f"built from a configuration: {build['layers']} layers, {build['hidden']} wide"
    return Path(model).name if model.startswith((".", "/", "~")) else str(model)


def _versions() -> dict[str, str]:
    return {
        "kdsearch": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: version(name) for name in PACKAGES},
    }
