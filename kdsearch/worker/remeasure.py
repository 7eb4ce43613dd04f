"""The latency of a recorded student, taken again: under the study's protocol or another one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdsearch.core.blobs import get_tree
from kdsearch.core.errors import ConflictError, UsageError
from kdsearch.core.records import Latency
from kdsearch.core.spec import LatencySpec
from kdsearch.data.dataset import load_saved
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.latency import measure_latency
from kdsearch.store import studies
from kdsearch.store.connect import Store
from kdsearch.store.reads import StudyRow, TrialRow
from kdsearch.students.building import load_student, wants
from kdsearch.teachers.source import load_tokenizer
from kdsearch.worker.measuring import NUM_TEXTS, encoder


def protocol(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> LatencySpec:
    """A study's protocol with what is asked for instead; UsageError for what cannot be."""
    asked = {name: value for name, value in changes.items() if value is not None}
    if "device" in asked and "runtime" not in asked:
        asked["runtime"] = "torch" if asked["device"] == "cuda" else "onnx"
    try:
        return LatencySpec.model_validate({**spec, **asked})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"such a protocol cannot be: {first['msg']}", hint="onnx on cpu, torch on cuda"
        ) from None


def remeasure(
    store: Store, study: StudyRow, trial: TrialRow, spec: LatencySpec, *, lock_folder: Path
) -> Latency:
    """Load the student with its hash checked and time it on the study's own texts; nothing is stored.

    Raises ConflictError where the trial has no student, ArtifactError where it cannot be read.
    """
    if trial.artifact is None or study.prepared is None:
        raise ConflictError(
            f"trial {trial.number} of study {study.name!r} is {trial.state}: it has no student to measure",
            hint=f"kdsearch trial list {study.name} --state complete",
        )
    store = store.of_study(study.artifacts_url)
    prepared = Prepared.load(store.blobs, study.prepared)
    inputs = Inputs.load(store.blobs, studies.find_study(store.engine, study.name).dataset_sha256)
    texts = load_saved(store.blobs, inputs.dataset).pools["validation"].texts
    with tempfile.TemporaryDirectory(prefix="kdsearch-bench-") as work:
        saved = load_student(get_tree(store.blobs, trial.artifact, Path(work) / "student"))
        vocabulary = prepared.vocabulary(wants(saved.student.NAME, saved.student.params).vocabulary)
        tokenizer = load_tokenizer(get_tree(store.blobs, vocabulary.tokenizer, Path(work) / "tokenizer"))
        encode = encoder(tokenizer, prepared.max_length)
        lock = HostLock(lock_folder)
        return measure_latency(saved.student.eval(), texts[:NUM_TEXTS], encode, spec, lock, seed=0)
