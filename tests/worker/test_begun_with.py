"""Students that begin with layers or vectors of something given, and what is asked for in vain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdsearch.core.errors import StudyFileError
from kdsearch.core.specteacher import BuildSpec
from kdsearch.core.studyfile import StudyFile
from kdsearch.search import check
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.teachers.build import build_teacher
from kdsearch.worker.create import create
from kdsearch.worker.memory import PeakMemory, resident_bytes

Finish = Callable[[StudyFile], str]

BEGUN = """\
version: 1
name: begun
data:
  train: synthetic://spam_opinions?rows=64&seed=1
  validation: synthetic://spam_opinions?rows=60&seed=2
teacher:
  model: encoder
  max_length: 16
  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 1}
pretrained: {encoder: ENCODER}
students:
  - {type: bert_small, init: [teacher, checkpoint], every: 2, dropout: 0.0}
  - {type: bag, embedding: teacher, hidden: 8}
schemes: [none]
training: {epochs: 1, batch_size: 32, seed: 5}
latency: {warmup: 2, min_queries: 10, min_seconds: 0}
budget: {trials: 4}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], StudyFile]:
    """The study with an encoder; `encoder` is the teacher's own, `other` reads other tokens."""
    spec = BuildSpec(layers=2, hidden=16, heads=2, vocab_size=100)
    for name, text in (("encoder", "a very good place"), ("other", "an ugly word")):
        texts = [text, "do not buy this"] * 4
        build_teacher(spec, texts, ("a", "b"), max_length=24, seed=1, folder=tmp_path / name)

    def written(encoder: str) -> StudyFile:
        path = tmp_path / "study.yaml"
        path.write_text(BEGUN.replace("ENCODER", encoder))
        return check.load(path, {})

    return written


def test_they_are_built_from_what_was_stored(
    store: Store, write: Callable[[str], StudyFile], finish: Finish
) -> None:
    assert finish(write("encoder")) == "done"
    trials = reads.trials(store.engine, reads.study(store.engine, "begun").id)
    assert {(trial.state, trial.failure) for trial in trials} == {("complete", None)}
    assert {trial.params.get("bag.embedding") for trial in trials} == {None, "teacher"}


def test_an_encoder_of_other_tokens_is_refused(store: Store, write: Callable[[str], StudyFile]) -> None:
    with pytest.raises(StudyFileError) as caught:
        create(store, write("other"), on_progress=lambda _: None)
    assert "does not read the tokens" in caught.value.problems[0].message
    assert reads.studies(store.engine) == []


def test_peak_memory_is_the_largest_sample() -> None:
    before, peak = resident_bytes(), PeakMemory("cpu")
    held = np.ones(40_000_000, np.uint8)
    peak.sample()
    assert held.sum() == 40_000_000
    del held
    peak.sample()
    assert peak.megabytes * 1e6 > before + 30_000_000
