"""Packing: fill a folder with a trial's student, prove it, and describe it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kdsearch import __version__
from kdsearch.core.blobs import get_tree
from kdsearch.core.spec import LatencySpec
from kdsearch.core.studyfile import spec_from_json
from kdsearch.data.dataset import load_saved
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared, Vocabulary
from kdsearch.export import examples
from kdsearch.export.card import card
from kdsearch.export.eightbit import Graphs, measure_int8
from kdsearch.export.evaluate import Remeasured, load_pool, read_test, remeasure
from kdsearch.export.folder import MODELING, Parcel, reload_student, write_parcel
from kdsearch.export.formats import HF, INT8, ONNX, TORCH
from kdsearch.export.loading import modeling_run, torch_run
from kdsearch.export.manifest import (
    CARD,
    TOKENIZER,
    Lineage,
    Manifest,
    Metrics,
    Quantised,
    Timing,
    Verification,
    hash_files,
    write_manifest,
)
from kdsearch.export.predict import FloatArray, open_session, open_tokenizer, pad
from kdsearch.export.standalone import RUNTIMES
from kdsearch.export.verify import (
    TOLERANCE,
    Parity,
    Run,
    check_parity,
    check_tokenizer,
    fail,
    largest_difference,
    session_run,
    student_run,
)
from kdsearch.store.connect import Store
from kdsearch.store.reads import StudyRow, TrialRow
from kdsearch.store.studies import StudyRecord, find_study
from kdsearch.students.building import SavedStudent, load_student, wants
from kdsearch.teachers.source import load_tokenizer

Progress = Callable[[str], None]
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "onnx", "onnxruntime", "numpy")
PREDICT = "predict.py"
CHECK_SECONDS = 300


@dataclass(frozen=True)
class Source:
    """What is exported, and where it lies."""

    store: Store
    study: StudyRow
    trial: TrialRow
    artifact: str
    """SHA-256 of the trained student."""
    logits: str
    """SHA-256 of its logits on the validation pool."""
    prepared: Prepared


@dataclass(frozen=True)
class Packing:
    """One export on its way."""

    source: Source
    formats: tuple[str, ...]
    self_contained: bool
    work: Path
    on_progress: Progress

    def into(self, folder: Path) -> Manifest:
        """Fill the folder, prove it, and describe it."""
        self.on_progress(f"reading trial {self.source.trial.number}")
        tokenizer = load_tokenizer(
            get_tree(self.source.store.blobs, self._vocabulary.tokenizer, self.work / "tokenizer")
        )
        self.on_progress("writing " + ", ".join(self.formats))
        parcel = Parcel(self._saved, tokenizer, self.work, self_contained=self.self_contained)
        write_parcel(folder, parcel, self.formats)
        metrics, verification, quantised = self._prove(folder, parcel)
        manifest = self._manifest(metrics, verification, quantised)
        (folder / CARD).write_text(card(manifest), encoding="utf-8")
        write_manifest(folder, manifest)
        if (folder / PREDICT).exists():
            self.on_progress("answering the examples in a process of their own")
            check_alone(folder)
        manifest = replace(manifest, files=hash_files(folder))
        write_manifest(folder, manifest)
        return manifest

    @cached_property
    def _saved(self) -> SavedStudent:
        saved = load_student(get_tree(self.source.store.blobs, self.source.artifact, self.work / "student"))
        if saved.labels != self.source.prepared.labels:
            raise fail(f"the student's labels are {saved.labels}, the study's {self.source.prepared.labels}")
        return saved

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        student = self._saved.student
        return self.source.prepared.vocabulary(wants(student.NAME, student.params).vocabulary)

    @cached_property
    def _record(self) -> StudyRecord:
        return find_study(self.source.store.engine, self.source.study.name)

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        blobs = self.source.store.blobs
        dataset = load_saved(blobs, Inputs.load(blobs, self._record.dataset_sha256).dataset)
        return dataset.pools["validation"].texts

    # ------------------------------------------------------------ proof

    def _prove(self, folder: Path, parcel: Parcel) -> tuple[Metrics, Verification, Quantised | None]:
        run = student_run(reload_student(folder, self._saved) if HF in self.formats else self._saved.student)
        self.on_progress("evaluating the exported weights on the validation pool")
        again = self._remeasure(run)
        self.on_progress("comparing what was written with torch, and the tokenizer with the training's")
        parity = self._parity(run, folder / RUNTIMES[ONNX].file) if ONNX in self.formats else None
        num_texts = self._check_tokenizer(folder)
        quantised = self._measure_int8(folder, parcel) if INT8 in self.formats else None
        self._write_examples(folder, run, quantised)
        metrics = self._metrics(run, again)
        return metrics, _verification(again, parity, num_texts), quantised

    def _metrics(self, run: Run, again: Remeasured) -> Metrics:
        test, reads = read_test(
            run,
            self.source.store,
            self.source.prepared,
            self._vocabulary,
            study_id=self.source.study.id,
            trial=self.source.trial.number,
            objective=self.source.study.quality_name,
        )
        return Metrics(
            objective=self.source.study.quality_name,
            validation=again.evaluation,
            test=test,
            test_reads=reads,
            teacher=None if self.source.study.teacher is None else self.source.study.teacher.scores,
        )

    def _remeasure(self, run: Run) -> Remeasured:
        if self.source.trial.scores is None:
            raise AssertionError(f"complete trial {self.source.trial.number} without scores")
        return remeasure(
            run,
            self.source.store.blobs,
            self.source.prepared,
            self._vocabulary,
            objective=self.source.study.quality_name,
            recorded=self.source.trial.scores,
            logits=self.source.logits,
        )

    def _parity(self, run: Run, graph: Path) -> Parity:
        return check_parity(
            run,
            session_run(open_session(graph)),
            load_pool(self.source.store.blobs, self._vocabulary, "validation"),
            vocab_size=self._vocabulary.vocab_size,
            max_length=self.source.prepared.max_length,
            pad_id=self._vocabulary.pad_id,
            num_labels=len(self.source.prepared.labels),
        )

    def _check_tokenizer(self, folder: Path) -> int:
        return check_tokenizer(
            open_tokenizer(folder / TOKENIZER, self.source.prepared.max_length),
            self._texts,
            load_pool(self.source.store.blobs, self._vocabulary, "validation"),
        )

    def _measure_int8(self, folder: Path, parcel: Parcel) -> Quantised:
        self.on_progress("measuring int8: quality, then latency beside float32")
        weights = self._saved.student.parameters()
        return measure_int8(
            Graphs(parcel.float32, folder / RUNTIMES[INT8].file, sum(weight.numel() for weight in weights)),
            self.source.store.blobs,
            self.source.prepared,
            self._vocabulary,
            objective=self.source.study.quality_name,
            tokenizer=folder / TOKENIZER,
            texts=self._texts,
            protocol=protocol(self.source.study),
        )

    def _write_examples(self, folder: Path, run: Run, quantised: Quantised | None) -> None:
        tokenizer = open_tokenizer(folder / TOKENIZER, self.source.prepared.max_length)
        rows = [encoding.ids for encoding in tokenizer.encode_batch(examples.texts())]
        logits, tolerance = {"float32": self._alone(run, rows)}, {"float32": TOLERANCE}
        for what, other in self._own_code(folder).items():
            largest_difference(logits["float32"], self._alone(other, rows), of=f"{what} against torch")
        if quantised is not None:
            logits["int8"] = self._alone(session_run(open_session(folder / RUNTIMES[INT8].file)), rows)
            # other processors round products of 8 bits otherwise
            tolerance["int8"] = max(10 * TOLERANCE, quantised.largest_diff)
        examples.write_examples(folder, self._saved.labels, logits, tolerance)

    def _own_code(self, folder: Path) -> dict[str, Run]:
        """What the code that goes with the folder loads."""
        found = {"pytorch/student.py": torch_run(folder)} if TORCH in self.formats else {}
        return {**found, MODELING: modeling_run(folder)} if self.self_contained else found

    def _alone(self, run: Run, rows: list[list[int]]) -> FloatArray:
        return np.concatenate([run(*pad([row], self._vocabulary.pad_id)) for row in rows])

    # ------------------------------------------------------------ description

    def _manifest(
        self, metrics: Metrics, verification: Verification, quantised: Quantised | None
    ) -> Manifest:
        study, trial, prepared = self.source.study, self.source.trial, self.source.prepared
        return Manifest(
            study=study.name,
            study_sha256=study.spec_sha256,
            trial=trial.number,
            student=self._saved.student.NAME,
            scheme=trial.scheme,
            params=trial.params,
            labels=self._saved.labels,
            max_length=prepared.max_length,
            pad_id=self._vocabulary.pad_id,
            metrics=metrics,
            latency=Timing(
                objective=study.latency_name,
                student=trial.latency,
                teacher=None if study.teacher is None else study.teacher.latency,
            ),
            lineage=Lineage(
                artifact=self.source.artifact,
                data_fingerprint=self._record.data_fingerprint,
                teacher=teacher_name(study.spec["teacher"]),
                teacher_fingerprint=prepared.teacher_fingerprint,
                teacher_hub_id=teacher_hub_id(study.spec["teacher"]),
            ),
            verification=verification,
            versions=_versions(),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            files={},
            formats=self.formats,
            self_contained=self.self_contained,
            quantised=quantised,
        )


def check_alone(folder: Path) -> None:
    """Answer the examples in a fresh process that sees nothing but the folder, or VerificationError."""
    command = [sys.executable, "-I", "-B", str(folder / PREDICT), "--check"]
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False
    )
    if ran.returncode:
        said = (ran.stdout + ran.stderr).strip().splitlines() or ["it said nothing"]
        raise fail(f"{PREDICT} does not answer the examples as torch did: {said[-1]}")


def protocol(study: StudyRow) -> LatencySpec:
    """How the study measures latency."""
    return spec_from_json(study.spec).latency


def _verification(again: Remeasured, parity: Parity | None, num_texts: int) -> Verification:
    return Verification(
        tolerance=TOLERANCE,
        stored_diff=again.stored_diff,
        onnx_diff=None if parity is None else parity.onnx_diff,
        padding_diff=None if parity is None else parity.padding_diff,
        num_cases=0 if parity is None else parity.num_cases,
        num_rows=0 if parity is None else parity.num_rows,
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


def teacher_hub_id(spec: Mapping[str, Any]) -> str | None:
    """``owner/name`` where that is how the study names its teacher, without a revision."""
    model = spec.get("model")
    if model is None or model.startswith((".", "/", "~")) or model.count("/") != 1:
        return None
    return str(model).partition("@")[0]


def _versions() -> dict[str, str]:
    return {
        "kdsearch": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: version(name) for name in PACKAGES},
    }
