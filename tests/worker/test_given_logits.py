"""A teacher of which only the logits are given: from the file to an exported student that reads words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from kdsearch.core.errors import DataError, StudyFileError
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.dataset import load_dataset
from kdsearch.data.prepared import Prepared
from kdsearch.data.tokens import text_keys
from kdsearch.export.bundle import export_student
from kdsearch.export.predict import Predictor
from kdsearch.search import check
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.worker.create import create

Finish = Callable[[StudyFile], str]

GIVEN = """\
version: 1
name: given
data:
  train: synthetic://spam_opinions?rows=90&seed=1
  validation: synthetic://spam_opinions?rows=60&seed=2
  test: synthetic://spam_opinions?rows=30&seed=3
teacher:
  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 300}
  logits: logits.npz
  max_length: 16
  label_map: {real: genuine, fake: spam}
students:
  - {type: textcnn, filters: 8, embed_dim: 8, kernel_sizes: [[2, 3]], vocabulary: [words, characters]}
schemes: [none, offline]
training: {epochs: 2, batch_size: 32, seed: 5, learning_rate: 3e-3}
latency: {warmup: 2, min_queries: 10, min_seconds: 0}
budget: {trials: 4}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., StudyFile]:
    """The study's file with something replaced, and logits of its texts that know every label."""

    def written(old: str = "", new: str = "", *, without: int = 0) -> StudyFile:
        path = tmp_path / "study.yaml"
        path.write_text(GIVEN.replace(old, new) if old else GIVEN)
        file = check.load(path, {})
        dataset = load_dataset(file.spec.data, base=tmp_path, teacher_labels=None)
        pools = [dataset.pools[name] for name in ("train", "validation")]
        texts = [text for pool in pools for text in pool.texts][without:]
        labels = np.concatenate([pool.labels_N for pool in pools])[without:]
        logits = np.where(np.arange(2) == labels[:, None], 2.0, -1.0)[:, ::-1].astype(np.float32)
        names = np.array(["fake", "real"])
        np.savez(tmp_path / "logits.npz", keys=text_keys(texts), logits=logits, labels=names)
        return file

    return written


def test_its_students_are_searched_and_exported(
    store: Store, write: Callable[..., StudyFile], finish: Finish, tmp_path: Path
) -> None:
    assert finish(write()) == "done"
    study = reads.study(store.engine, "given")
    trials = reads.trials(store.engine, study.id)
    assert {(trial.state, trial.failure) for trial in trials} == {("complete", None)}
    assert study.teacher is not None
    assert study.teacher.latency is None
    assert study.teacher.scores.accuracy == 1.0
    prepared = Prepared.load(store.blobs, str(study.prepared))
    assert prepared.teacher is None
    read = {str(trial.params["textcnn.vocabulary"]): trial for trial in trials}
    assert set(read) == {"words", "characters"}, "or one of them is not exported"
    for vocabulary, trial in read.items():
        manifest = export_student(store, study, trial, to=tmp_path / vocabulary)
        assert manifest.latency.teacher is None
        assert manifest.latency.speedup is None
        assert manifest.lineage.teacher == "logits given as logits.npz"
        assert "teacher, validation | 100.00" in (tmp_path / vocabulary / "README.md").read_text()
        _predicts_what_was_measured(store, prepared, tmp_path / vocabulary, str(trial.validation_logits))


def _predicts_what_was_measured(store: Store, prepared: Prepared, folder: Path, logits: str) -> None:
    data = load_dataset(
        check.load(folder.parent / "study.yaml", {}).spec.data, base=folder, teacher_labels=None
    )
    found = Predictor.open(folder).logits(data.pools["validation"].texts)
    assert np.abs(found - np.load(store.blobs.open(logits))).max() < 1e-3
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert "[CLS]" not in tokenizer.get_vocab(), "words and characters have no such token"


def test_a_text_without_logits_is_an_error_when_the_study_is_created(
    store: Store, write: Callable[..., StudyFile]
) -> None:
    with pytest.raises(DataError, match="no logits of 3 of 90 texts of train"):
        create(store, write(without=3), on_progress=lambda _: None)
    assert reads.studies(store.engine) == []


@pytest.mark.parametrize("scheme", ["joint_isolated", "joint_mutual", "joint_sum", "hint", "route"])
def test_what_needs_a_teacher_that_runs_is_refused(
    store: Store, write: Callable[..., StudyFile], scheme: str
) -> None:
    with pytest.raises(StudyFileError) as caught:
        create(store, write("[none, offline]", f"[none, {scheme}]"), on_progress=lambda _: None)
    (problem,) = caught.value.problems
    assert problem.path == ("schemes", 1, "type")
    assert scheme in problem.message
    assert reads.studies(store.engine) == []
