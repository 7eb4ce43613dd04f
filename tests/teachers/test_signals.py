"""Signals: the teacher's own logits, in evaluation mode, found again by text and never by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdsearch.core.errors import ArtifactError, VerificationError
from kdsearch.data.tokens import TokenPool, concat
from kdsearch.teachers.signals import (
    Shard,
    accuracy,
    audit,
    compute_hidden,
    compute_logits,
    compute_shard,
    lookup,
    signals_key,
    take,
)
from kdsearch.teachers.source import TeacherModule, load_classifier

LABELS = ("ham", "spam", "odd")
CPU = {"pad_id": 0, "device": "cpu", "breathe": lambda: None}


@pytest.fixture
def teacher(classifier: Path) -> TeacherModule:
    return load_classifier(classifier, LABELS)


@pytest.fixture
def logits(teacher: TeacherModule, pool: TokenPool) -> np.ndarray:
    return compute_logits(teacher, pool, **CPU)


def rows(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, np.int64)


def test_the_teacher_labels_in_evaluation_mode_and_without_gradient(teacher, pool, logits) -> None:
    teacher.train()
    for parameter in teacher.parameters():
        parameter.requires_grad_(True)
    again = compute_logits(teacher, pool, **CPU)
    assert np.array_equal(again, logits) and again.dtype == np.float32
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_a_text_never_depends_on_its_batch_mates(teacher, pool, logits) -> None:
    alone = compute_logits(teacher, pool, **CPU, batch_size=1)
    np.testing.assert_allclose(logits, alone, atol=1e-5)
    order = rows(7, 2, 4, 0, 6, 1, 5, 3)
    shuffled = compute_logits(teacher, take(pool, order), **CPU, batch_size=3)
    np.testing.assert_allclose(shuffled, logits[order], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 0.01, "texts must differ for this to mean anything"


def test_breathe_comes_before_every_batch(teacher, pool) -> None:
    breaths: list[int] = []
    compute_logits(teacher, pool, pad_id=0, device="cpu", breathe=lambda: breaths.append(1), batch_size=3)
    assert len(breaths) == 3


def test_take_keeps_rows_whole(pool) -> None:
    part = take(pool, rows(4, 2, 2))
    assert [part.row(i).tolist() for i in range(3)] == [pool.row(i).tolist() for i in (4, 2, 2)]
    assert np.array_equal(part.keys, pool.keys[[4, 2, 2]])
    assert np.array_equal(part.labels_N, pool.labels_N[[4, 2, 2]])
    assert len(take(pool, rows())) == 0


def test_signals_follow_their_text_through_shuffling_and_growing(teacher, pool, logits) -> None:
    shards = [compute_shard(teacher, pool, part, **CPU) for part in (rows(5, 0, 3), rows(1, 2, 4, 7))]
    order = rows(3, 6, 0, 5, 2, 7, 1, 4)
    grown = concat([take(pool, order), take(pool, rows(2, 5))], "grown")
    found, missing = lookup(shards, grown)
    assert not len(missing)
    np.testing.assert_allclose(found, logits[np.concatenate([order, rows(2, 5)])], atol=1e-5)


def test_missing_texts_are_named_once(teacher, pool, logits) -> None:
    found, missing = lookup([compute_shard(teacher, pool, rows(0, 3), **CPU)], pool)
    assert missing.tolist() == [1, 2, 4, 5, 7], "row 6 is the text of row 1"
    assert np.isnan(found).all(axis=1).tolist() == [i not in (0, 3) for i in range(8)]
    assert lookup([], pool)[1].tolist() == [0, 1, 2, 3, 4, 5, 7]


def test_shards_come_back_as_they_were(teacher, pool, tmp_path) -> None:
    shard = compute_shard(teacher, pool, rows(0, 1), **CPU)
    shard.save(tmp_path / "shard.npz")
    again = Shard.load(tmp_path / "shard.npz")
    assert np.array_equal(again.keys, shard.keys) and np.array_equal(again.values, shard.values)
    (tmp_path / "shard.npz").write_bytes((tmp_path / "shard.npz").read_bytes()[:100])
    with pytest.raises(ArtifactError, match="teacher signals"):
        Shard.load(tmp_path / "shard.npz")
    with pytest.raises(ValueError, match="keys"):
        Shard(shard.keys[:1], shard.values)


def test_a_pickle_in_a_shard_is_never_executed(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path.joinpath("executed").touch, ())

    np.savez(tmp_path / "evil.npz", keys=np.zeros((1, 32), np.uint8), logits_SC=np.array([Evil()], object))
    with pytest.raises(ArtifactError):
        Shard.load(tmp_path / "evil.npz")
    assert not (tmp_path / "executed").exists()


def test_the_key_knows_teacher_tokenizer_and_length() -> None:
    keys = {signals_key(*parts) for parts in [("a", "b", 8), ("b", "a", 8), ("a", "b", 9), ("a", "c", 8)]}
    assert len(keys) == 4
    assert signals_key("a", "b", 8) in keys
    hidden = {signals_key("a", "b", 8, layers=layers) for layers in [(1,), (1, 2), (2, 1)]}
    assert len(hidden | keys) == 7


# ---------------------------------------------------------------- hidden vectors


def test_hidden_vectors_are_the_means_of_a_layer_over_real_tokens(teacher, pool) -> None:
    found = compute_hidden(teacher, pool, layers=(3, 1), **CPU)
    assert (found.shape, found.dtype) == ((len(pool), 2, 16), np.float16)
    row = torch.from_numpy(pool.row(4).astype(np.int64))[None]
    with torch.no_grad():
        states = teacher.classifier.base_model(input_ids=row, output_hidden_states=True).hidden_states
    for k, layer in enumerate((3, 1)):
        np.testing.assert_allclose(found[4, k], states[layer][0].mean(dim=0).numpy(), atol=2e-3)
    assert np.abs(found[:, 0] - found[:, 1]).max() > 0.01, "layers must differ for this to mean anything"


def test_the_last_layers_mean_is_what_the_teacher_gives_beside_its_logits(teacher, pool) -> None:
    ids = torch.from_numpy(np.stack([pool.row(0), pool.row(0)]).astype(np.int64))
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    with torch.no_grad():
        beside = teacher(ids, mask).hidden_BD
        assert torch.equal(teacher.hidden(ids, mask, (3,))[:, 0], beside)
        ids[1, 3:] = 7  # what stands on padding never counts
        assert torch.equal(teacher.hidden(ids, mask, (3,))[:, 0], beside)


@pytest.mark.parametrize("layers", [(), (0,), (4,)])
def test_a_layer_that_is_not_there_is_refused(teacher, pool, layers) -> None:
    with pytest.raises(ValueError, match="1 to 3"):
        compute_hidden(teacher, pool, layers=layers, **CPU)


def test_hidden_vectors_follow_their_text_as_logits_do(teacher, pool, tmp_path) -> None:
    whole = compute_hidden(teacher, pool, layers=(1, 2), **CPU)
    compute_shard(teacher, pool, rows(5, 0, 3), **CPU, layers=(1, 2)).save(tmp_path / "shard.npz")
    shards = [
        Shard.load(tmp_path / "shard.npz"),
        compute_shard(teacher, pool, rows(1, 2), **CPU, layers=(1, 2)),
    ]
    found, missing = lookup(shards, take(pool, rows(3, 2, 6)))
    assert not len(missing) and found.dtype == np.float16
    np.testing.assert_allclose(found, whole[[3, 2, 6]], atol=2e-3)
    audit(teacher, pool, whole, **CPU, layers=(1, 2))
    with pytest.raises(VerificationError, match="cached signals of row"):
        audit(teacher, pool, whole[:, ::-1], **CPU, layers=(1, 2))
    with pytest.raises(VerificationError, match="not finite"):
        audit(teacher, pool, lookup(shards, pool)[0], **CPU, layers=(1, 2))


def test_shards_of_the_first_version_can_be_read(tmp_path) -> None:
    keys, logits_SC = np.zeros((2, 32), np.uint8), np.ones((2, 3), np.float32)
    np.savez(tmp_path / "old.npz", keys=keys, logits_SC=logits_SC)
    assert np.array_equal(Shard.load(tmp_path / "old.npz").values, logits_SC)


def test_accuracy_is_over_labelled_rows() -> None:
    logits = np.eye(3, dtype=np.float32)
    assert accuracy(logits, np.asarray([0, 1, -1])) == 1.0
    assert accuracy(logits, np.asarray([0, 2, 2])) == pytest.approx(2 / 3)
    assert accuracy(logits, np.asarray([-1, -1, -1])) is None


def test_audit_accepts_what_the_teacher_says(teacher, pool, logits) -> None:
    audit(teacher, pool, logits, **CPU, expected_accuracy=accuracy(logits, pool.labels_N))


@pytest.mark.parametrize("damage", ["rolled", "one row", "nan", "short", "another teacher"])
def test_audit_finds_signals_of_other_rows(teacher, pool, logits, damage: str) -> None:
    wrong = logits.copy()
    if damage == "one row":
        wrong[5] += 0.02
    if damage == "nan":
        wrong[5, 0] = np.nan
    if damage == "another teacher":
        with torch.no_grad():
            teacher.classifier.classifier.weight += 1.0
    wrong = {"rolled": np.roll(logits, 1, axis=0), "short": logits[:-1]}.get(damage, wrong)
    with pytest.raises(VerificationError, match="pool 'train'") as error:
        audit(teacher, pool, wrong, **CPU)
    assert error.value.exit_code == 7 and error.value.hint


def test_audit_compares_the_accuracy(teacher, pool, logits) -> None:
    found = accuracy(logits, pool.labels_N)
    assert found is not None
    with pytest.raises(VerificationError, match="accuracy"):
        audit(teacher, pool, logits, **CPU, expected_accuracy=found + 2 / 7)
