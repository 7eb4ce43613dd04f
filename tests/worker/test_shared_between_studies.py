"""What studies share is the same thing in each: logits under the right labels, teachers that began alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdsearch.core.specteacher import BuildSpec
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.teachers import source
from kdsearch.teachers.build import build_teacher

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]

TEXTS = ["a very good place", "do not buy this", "it was fine"] * 3
FINETUNE = "  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 2"
BUILD = f"  build: {{layers: 1, hidden: 16, heads: 2, vocab_size: 400}}\n  max_length: 24\n{FINETUNE}}}\n"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A classifier that finds every text genuine."""
    spec = BuildSpec(layers=1, hidden=16, heads=2, vocab_size=100)
    labels = ("genuine", "spam")
    build_teacher(spec, TEXTS, labels, max_length=24, seed=1, folder=tmp_path / "encoder")
    module = source.load_encoder_for(tmp_path / "encoder", labels, seed=1)
    with torch.no_grad():
        module.classifier.classifier.bias.copy_(torch.tensor([4.0, 0.0]))
    source.save_teacher(module, source.load_tokenizer(tmp_path / "encoder"), tmp_path / "given")
    return tmp_path / "given"


def prepared_of(store: Store, name: str) -> Prepared:
    return Prepared.load(store.blobs, str(reads.study(store.engine, name).prepared))


@pytest.mark.usefixtures("given")
def test_one_teacher_in_studies_whose_labels_stand_in_another_order(
    store: Store, finish: Finish, write_study: Write
) -> None:
    for name, labels in (("first", "[genuine, spam]"), ("second", "[spam, genuine]")):
        changed = f"  labels: {labels}\nteachers:\n  - {{model: ./given}}\nteacher:\n"
        assert finish(write_study(name, trials=1, replace=("teacher:\n", changed))) == "done"
        (teacher,) = prepared_of(store, name).historical
        assert teacher.scores.recall == {"genuine": 1.0, "spam": 0.0}


@pytest.mark.usefixtures("given")
def test_a_recorded_teacher_that_began_with_its_own_head_is_not_one_with_a_new_head(
    store: Store, finish: Finish, write_study: Write
) -> None:
    schemes = "schemes: [{type: joint_isolated, loss: mse, lambda: 0.5}]\n"
    logits = []
    for name, tuned in (("as-it-is", ""), ("tuned", f"{FINETUNE}, force: true}}\n")):
        teacher = f"  model: ./given\n  max_length: 24\n{tuned}{schemes}"
        assert finish(write_study(name, trials=2, replace=(BUILD, teacher))) == "done"
        trajectory = prepared_of(store, name).trajectory
        assert trajectory is not None
        logits.append(trajectory.logits)
    assert logits[0] != logits[1]
