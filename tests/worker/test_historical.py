"""Historical teachers: the study's own recipe on a slice of its training pool, from the same start."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kdsearch.core.blobs import get_tree
from kdsearch.core.errors import DataError
from kdsearch.teachers import pretrain, source
from kdsearch.teachers.signals import take
from kdsearch.worker import start, teacher, tuning
from kdsearch.worker.context import Stopped

Make = Callable[..., Any]
PRETRAIN = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 16}


@pytest.fixture
def never_again(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on training anything is an error."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    def begin() -> None:
        monkeypatch.setattr(tuning, "fit", refuse)
        monkeypatch.setattr(pretrain, "pretrain", refuse)

    return begin


def test_the_one_slice_of_one_is_the_studys_teacher(teacher_study: Make) -> None:
    study = teacher_study()
    own, historical = study.prepare(), study.prepare("1/1")
    assert (historical.final, historical.anchors, historical.start) == (own.final, own.anchors, own.start)


def test_a_slice_is_every_nth_row_and_nothing_else(teacher_study: Make) -> None:
    study, other = teacher_study(), teacher_study()
    historical = study.prepare("2/3")
    rows = np.arange(1, 60, 3)
    other.pools = {**other.pools, "train": take(other.pools["train"], rows)}
    assert historical.final == other.prepare().final
    assert study.said[0].startswith("fine-tuning the teacher of slice 2/3: 1 of 2 anchors")
    finals = {
        historical.final,
        study.prepare("1/3").final,
        study.prepare("3/3").final,
        study.prepare("2/4").final,
    }
    assert len(finals) == 4


def test_a_slice_is_found_again(teacher_study: Make, never_again: Callable[[], None]) -> None:
    trees = [teacher_study().prepare(part) for part in ("1/2", "2/2", None)]
    never_again()
    assert [teacher_study().prepare(part) for part in ("1/2", "2/2", None)] == trees


def test_a_slice_taken_over_in_the_middle_is_the_same_and_takes_no_others_state(
    teacher_study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = teacher_study()
    with pytest.raises(Stopped):
        first.prepare("1/2", epochs=1)
    other = teacher_study()
    other.prepare("2/2", unfinished=first.kept[-1])
    assert len(other.kept) == 2, "what another slice left is nothing to go on from"
    second = teacher_study()
    trees = second.prepare("1/2", unfinished=first.kept[-1])
    assert len(second.kept) == 1
    monkeypatch.setattr(teacher, "KIND", "teacher elsewhere")  # so that the cache knows nothing of it
    alone = teacher_study().prepare("1/2")
    assert (trees.final, trees.anchors) == (alone.final, alone.anchors)


def test_a_slice_without_a_text_is_an_error(teacher_study: Make) -> None:
    with pytest.raises(DataError, match=r"slice 90/99 has no labelled text .* 60 rows") as error:
        teacher_study().prepare("90/99")
    assert error.value.hint


# ---------------------------------------------------------------- what they start from


def test_a_built_teacher_reads_the_unlabelled_texts_too(teacher_study: Make) -> None:
    with_pool, without = teacher_study(unlabelled=40), teacher_study()
    words = [set(source.load_tokenizer(study.folder).get_vocab()) for study in (with_pool, without)]
    assert {"sourceccc", "sourceaaa"} <= words[0]
    assert "sourceaaa" in words[1] and "sourceccc" not in words[1]
    assert "sourcebbb" not in words[0], "what is scored is not read"


def test_pretraining_comes_before_everything_that_starts_from_the_teacher(
    teacher_study: Make, tmp_path: Any
) -> None:
    study, plain = teacher_study(pretrain=PRETRAIN, unlabelled=40), teacher_study(unlabelled=40)
    trees, historical = study.prepare(), study.prepare("1/2")
    assert study.said[0].startswith("pretraining the teacher: epoch 1 of 2, loss ")
    assert [said.split(":")[0] for said in study.said] == ["pretraining the teacher"] * 2 + [
        "fine-tuning the teacher"
    ] * 2 + ["fine-tuning the teacher of slice 1/2"] * 2
    unread = plain.prepare()
    assert trees.start == historical.start != unread.start
    assert trees.final != unread.final
    assert trees.seconds > 0
    blobs = study.context.store.blobs
    begun = get_tree(blobs, trees.start, tmp_path / "begun")
    assert not source.describe(begun).classifies
    assert source.tokenizer_fingerprint(begun) == source.tokenizer_fingerprint(study.folder)
    assert source.fingerprint(study.folder) == source.fingerprint(plain.folder), "built alike"


def test_pretraining_taken_over_in_the_middle_is_the_same_and_is_found_again(
    teacher_study: Make, monkeypatch: pytest.MonkeyPatch, never_again: Callable[[], None]
) -> None:
    whole = teacher_study(pretrain=PRETRAIN).prepare()
    monkeypatch.setattr(start, "KIND", "pretrained elsewhere")  # so that the cache knows nothing of it
    first = teacher_study(pretrain=PRETRAIN, finetune={"epochs": 3, "anchors": 2})
    with pytest.raises(Stopped):
        first.prepare(epochs=1)
    second = teacher_study(pretrain=PRETRAIN, finetune={"epochs": 3, "anchors": 2})
    trees = second.prepare(unfinished=first.kept[-1])
    assert trees.start == whole.start
    assert second.said[0].startswith("pretraining the teacher: epoch 2 of 2")
    assert len(second.kept) == 3, "one epoch and two anchors"
    never_again()
    assert teacher_study(pretrain=PRETRAIN).prepare() == whole


def test_checkpoints_go_when_the_teacher_is_there(teacher_study: Make) -> None:
    study = teacher_study(pretrain=PRETRAIN)
    blobs = study.context.store.blobs
    study.prepare()
    assert len(study.kept) == 4, "two epochs and two anchors"
    states = [json.loads(blobs.open(kept).read_text())["checkpoint"] for kept in study.kept]
    assert [blobs.exists(state) for state in states] == [False] * 4
