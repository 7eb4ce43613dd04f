"""A whole study over every scheme: historical teachers on slices, further pools, words with vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.schemes import SCHEMES
from kdsearch.measure.quality import score
from kdsearch.search import check
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.store.reads import TrialRow
from kdsearch.worker.checkpoints import Checkpoints

Finish = Callable[[StudyFile], str]

ALL = """\
version: 1
name: every-scheme
data:
  train: synthetic://spam_opinions?rows=90&seed=1
  validation: synthetic://spam_opinions?rows=60&seed=2
  test: synthetic://spam_opinions?rows=30&seed=3
  unlabelled: synthetic://spam_opinions?rows=40&seed=4
  augmented: {times: 1}
teacher:
  build: {layers: 2, hidden: 16, heads: 2, vocab_size: 300}
  max_length: 16
  pretrain: {epochs: 1}
  finetune: {epochs: 3, learning_rate: 1e-3, batch_size: 32, anchors: 3}
  joint: {epochs: 2, learning_rate: 1e-3}
teachers:
  - slice: 1/2
  - {slice: 2/2, weight: 2}
pretrained: {vectors: vectors.txt}
students:
  - {type: textcnn, filters: 8, embed_dim: 8, kernel_sizes: [[2, 3]]}
  - {type: bag, embedding: vectors, vocabulary: words, hidden: 8}
schemes:
  - none
  - {type: offline, pools: train+unlabelled+augmented}
  - joint_isolated
  - joint_mutual
  - joint_sum
  - multi_teacher
  - {type: hint, hint_epochs: 1}
  - route
training: {epochs: 3, batch_size: 32, seed: 5, rows_per_epoch: 120}
latency: {warmup: 2, min_queries: 10, min_seconds: 0}
budget: {trials: 16}
"""
VECTORS = "the 0.5 0 0\ngreat 0 1 0\nplace 0 0 1\nand 1 1 0\n"


@pytest.fixture
def file(tmp_path: Path) -> StudyFile:
    """The study's file, and its vectors beside it."""
    (tmp_path / "vectors.txt").write_text(VECTORS)
    path = tmp_path / "study.yaml"
    path.write_text(ALL)
    return check.load(path, {})


def test_every_scheme_ends_with_what_it_was_prepared_for(
    store: Store, file: StudyFile, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One study, since it takes a while; what is asked of it is told apart below."""
    stored: dict[str, set[str]] = {}
    put = Checkpoints.put

    def watched(self: Checkpoints, state: bytes) -> str:
        sha256 = put(self, state)
        stored.setdefault(self._header.decode(), set()).add(sha256)
        return sha256

    monkeypatch.setattr(Checkpoints, "put", watched)
    assert finish(file) == "done"
    study = reads.study(store.engine, "every-scheme")
    trials = reads.trials(store.engine, study.id)
    assert {(t.state, t.failure) for t in trials} == {("complete", None)}
    assert {(t.student, t.scheme) for t in trials} == {(s, x) for s in ("textcnn", "bag") for x in SCHEMES}
    prepared = Prepared.load(store.blobs, str(study.prepared))
    _every_epoch_has_as_many_rows(store, study.id, trials)
    _joint_trials_know_their_teacher(trials, prepared)
    _coverage_is_of_the_historical_teachers(store, trials, prepared)
    _signals_are_of_the_pools_that_are_trained_on(store, prepared)
    _words_align_with_the_teachers_tokens(store, prepared)
    assert prepared.oov_share["vectors/words"] > 0.2
    assert not any(store.blobs.exists(sha256) for of_one in stored.values() for sha256 in of_one)
    assert sum("trial" in owner for owner in stored) == 16


def _every_epoch_has_as_many_rows(store: Store, study_id: int, trials: list[TrialRow]) -> None:
    for trial in trials:
        epochs = reads.epochs(store.engine, study_id, trial.number)
        assert [epoch.rows_seen for epoch in epochs] == [120, 240, 360]
        unscored = [epoch.epoch for epoch in epochs if epoch.scores is None]
        assert unscored == ([1] if trial.scheme == "hint" else [])


def _joint_trials_know_their_teacher(trials: list[TrialRow], prepared: Prepared) -> None:
    joint = {"joint_isolated", "joint_mutual", "joint_sum"}
    for trial in trials:
        assert (trial.teacher is not None) == (trial.scheme in joint)
        assert trial.peak_memory_mb is not None
        assert trial.peak_memory_mb > 50
    assert prepared.trajectory is not None
    recorded = [trial.teacher for trial in trials if trial.scheme == "joint_isolated"]
    assert recorded == [prepared.trajectory.scores] * 2


def _coverage_is_of_the_historical_teachers(store: Store, trials: list[TrialRow], prepared: Prepared) -> None:
    pool = TokenPool.load(store.blobs.open(prepared.pools["validation"].tokens))
    past = np.load(store.blobs.open(prepared.signals["historical"]["validation"]))
    assert past.shape == (60, 2, 2)
    assert [teacher.weight for teacher in prepared.historical] == [1.0, 2.0]
    assert [teacher.name for teacher in prepared.historical] == ["slice 1/2", "slice 2/2"]
    assert prepared.historical[0].teacher != prepared.historical[1].teacher
    for trial in trials:
        logits = np.load(store.blobs.open(str(trial.validation_logits)))
        again = score(
            logits, pool.labels_N, labels=prepared.labels, objective="accuracy", historical_NKC=past
        )
        assert trial.scores is not None
        assert trial.scores.coverage == again.coverage


def _signals_are_of_the_pools_that_are_trained_on(store: Store, prepared: Prepared) -> None:
    shapes = {
        (signal, pool): np.load(store.blobs.open(sha256)).shape
        for signal, by_pool in prepared.signals.items()
        for pool, sha256 in by_pool.items()
    }
    rows = {"train": 90, "unlabelled": 40, "augmented": 90}
    layers = {(f"hidden:{layer}", pool): (n, 16) for layer in (1, 2) for pool, n in rows.items()}
    assert layers.items() <= shapes.items()
    anchors = {signal for signal, _ in shapes if signal.startswith("anchor")}
    assert anchors == {f"anchor:{k}" for k in range(1, len(prepared.anchors) + 1)}
    assert {pool: prepared.pools[pool].logits is not None for pool in prepared.pools} == {
        **dict.fromkeys((*rows, "validation"), True),
        "test": False,
    }
    assert prepared.trajectory is not None
    assert np.load(store.blobs.open(prepared.trajectory.logits)).shape == (2, 90, 2)


def _words_align_with_the_teachers_tokens(store: Store, prepared: Prepared) -> None:
    words = prepared.vocabularies["words"]
    assert set(words.tokens) == set(prepared.pools)
    for name, stored in prepared.pools.items():
        own = TokenPool.load(store.blobs.open(stored.tokens))
        read = TokenPool.load(store.blobs.open(words.tokens[name]))
        assert np.array_equal(own.keys, read.keys)
        assert np.array_equal(own.labels_N, read.labels_N)
    table = np.load(store.blobs.open(prepared.tables["vectors/words"]))
    assert table.shape == (words.num_tokens, 3)


PLAIN = """\
schemes:
  - none
  - {type: offline, pools: train}
"""


def test_what_no_trial_can_ask_for_is_not_prepared(
    store: Store, file: StudyFile, finish: Finish, tmp_path: Path
) -> None:
    first, rest = ALL.split("schemes:")
    plain = first.replace("every-scheme", "plain") + PLAIN + rest[rest.index("training:") :]
    plain = plain.replace(", embedding: vectors, vocabulary: words", ", embed_dim: 8")
    (tmp_path / "plain.yaml").write_text(plain.replace("trials: 16", "trials: 1"))
    assert finish(check.load(tmp_path / "plain.yaml", {})) == "done"
    prepared = Prepared.load(store.blobs, str(reads.study(store.engine, "plain").prepared))
    assert set(prepared.signals) == {"historical"}
    assert set(prepared.signals["historical"]) == {"validation"}, "for coverage alone"
    assert (prepared.vocabularies, prepared.tables, prepared.trajectory) == ({}, {}, None)
    assert prepared.teacher_start is None
    assert {name for name, pool in prepared.pools.items() if pool.logits} == {"train", "validation"}
