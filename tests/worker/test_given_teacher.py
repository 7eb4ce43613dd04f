"""A teacher that classifies already: used as it is, its logits under the right labels, or refused at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsearch.core.errors import DataError
from kdsearch.core.specteacher import BuildSpec
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.teachers import source
from kdsearch.teachers.build import build_teacher
from kdsearch.worker.create import create

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]

OWN = ("good", "bad", "ugly")
TEXTS = ["a very good place", "do not buy this", "it was fine"] * 3
BUILT = """\
  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 400}
  max_length: 24
  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 2}
"""


def write_teacher(folder: Path, own: tuple[str, ...]) -> None:
    """A classifier that finds every text `own[0]`, and `own[1]` next to that."""
    spec = BuildSpec(layers=1, hidden=16, heads=2, vocab_size=100)
    build_teacher(spec, TEXTS, own, max_length=24, seed=1, folder=folder / "encoder")
    module = source.load_encoder_for(folder / "encoder", own, seed=1)
    with torch.no_grad():
        module.classifier.classifier.bias.copy_(torch.tensor([4.0, 2.0, 0.0])[: len(own)])
    source.save_teacher(module, source.load_tokenizer(folder / "encoder"), folder)


@pytest.fixture
def given(tmp_path: Path, write_study: Write) -> Callable[..., StudyFile]:
    """A study with a given teacher of these labels and this map."""

    def write(own: tuple[str, ...], label_map: str) -> StudyFile:
        write_teacher(tmp_path / "given", own)
        teacher = f"  model: ./given\n  max_length: 24\n  label_map: {{{label_map}}}\n"
        return write_study(trials=2, replace=(BUILT, teacher))

    return write


@pytest.mark.parametrize("good", ["genuine", "spam"])
def test_its_logits_stand_under_the_labels_that_the_map_says(
    store: Store, finish: Finish, given: Callable[..., StudyFile], good: str
) -> None:
    bad = "spam" if good == "genuine" else "genuine"
    assert finish(given(OWN[:2], f"good: {good}, bad: {bad}")) == "done"
    study = reads.study(store.engine, "tiny")
    assert study.prepared is not None
    prepared = Prepared.load(store.blobs, study.prepared)
    logits = np.load(store.blobs.open(str(prepared.pools["train"].logits)))
    assert {prepared.labels[i] for i in logits.argmax(axis=1)} == {good}
    assert study.teacher is not None
    assert study.teacher.scores.recall == {good: 1.0, bad: 0.0}


@pytest.mark.parametrize(
    ("label_map", "match"),
    [
        ("good: genuine, bad: spam, ugly: spam", "one name for several"),
        ("good: genuine, bad: spam, uglier: ugly", "no label 'uglier'"),
    ],
)
def test_a_map_that_is_not_one_to_one_is_refused_when_the_study_is_created(
    store: Store, given: Callable[..., StudyFile], label_map: str, match: str
) -> None:
    with pytest.raises(DataError, match=match) as caught:
        create(store, given(OWN, label_map), on_progress=lambda _: None)
    assert caught.value.hint
    assert reads.studies(store.engine) == []
