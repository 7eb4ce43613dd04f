"""An exported configuration and weights give the same student inside transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

import kdsearch.hf
from kdsearch.export.folder import PREFIX, config_json
from kdsearch.hf.modeling import KdsearchStudent, shorten
from kdsearch.students import STUDENTS
from kdsearch.students.base import EncoderShape, InputShape, Student
from kdsearch.students.building import SavedStudent, build_student

LABELS = ("ham", "spam", "没用")
ENCODER = EncoderShape(
    hidden=12, layers=4, heads=3, intermediate=20, max_positions=9, layer_norm_eps=1e-5, activation="gelu_new"
)
SHAPE = InputShape(
    vocab_size=40, num_tokens=30, num_labels=3, max_length=8, pad_id=0, embedding_width=5, encoder=ENCODER
)
WORDS = {"embedding": "vectors", "vocabulary": "words", "dropout": 0.5}
PARAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "bag": ("bag", {"embed_dim": 8, "hidden": 8, "dropout": 0.5}),
    "textcnn": ("textcnn", {"filters": 8, "kernel_sizes": (2, 3), "embed_dim": 8, "dropout": 0.5}),
    "bilstm": (
        "bilstm",
        {"hidden": 8, "layers": 2, "embed_dim": 8, "pooling": "attention", "dropout": 0.5},
    ),
    "bert_small": ("bert_small", {"layers": 1, "hidden": 16, "dropout": 0.1}),
    "static bag": ("bag", {"hidden": 8, "channels": "static", **WORDS}),
    "two channels": (
        "textcnn",
        {"filters": 8, "kernel_sizes": (2, 3), "channels": "multichannel", **WORDS},
    ),
    "mean": ("bilstm", {"hidden": 8, "layers": 1, "input": "sentence_mean", "channels": "static", **WORDS}),
    "every second layer": ("bert_small", {"init": "teacher", "every": 2, "dropout": 0.1}),
}


def make_student(case: str) -> Student:
    name, params = PARAMS[case]
    table = torch.randint(0, SHAPE.num_tokens, (SHAPE.vocab_size,)).numpy()
    return build_student(name, params, SHAPE, table, seed=3).eval()


def save(student: Student, folder: Path) -> None:
    from safetensors.torch import save_file

    config = config_json(SavedStudent(student, LABELS), closing_tokens=1)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {PREFIX + name: tensor.clone() for name, tensor in student.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def batch(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, SHAPE.vocab_size, (rows, length))
    lengths = torch.randint(1, length + 1, (rows,))
    mask = (torch.arange(length) < lengths[:, None]).long()
    return ids * mask, mask


def test_every_student_is_covered() -> None:
    assert {name for name, _ in PARAMS.values()} == set(STUDENTS)


@pytest.mark.parametrize("name", PARAMS)
def test_auto_class_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    student = make_student(name)
    save(student, tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert isinstance(loaded, KdsearchStudent) and not loaded.training
    assert loaded.config.id2label == dict(enumerate(LABELS))
    ids, mask = batch(5, SHAPE.max_length)
    with torch.inference_mode():
        assert torch.equal(loaded(ids, attention_mask=mask).logits, student(ids, mask).logits_BC)
        assert torch.equal(loaded(ids).logits, student(ids, torch.ones_like(ids)).logits_BC)


@pytest.mark.parametrize("name", PARAMS)
def test_save_pretrained_and_back(name: str, tmp_path: Path) -> None:
    student = make_student(name)
    save(student, tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    ids, mask = batch(4, 5)
    with torch.inference_mode():
        assert torch.equal(again(ids, attention_mask=mask).logits, student(ids, mask).logits_BC)
    assert again.config.params() == student.params


def test_loss_is_the_cross_entropy_and_reaches_every_weight(tmp_path: Path) -> None:
    save(make_student("textcnn"), tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids, mask = batch(6, 7)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    output = loaded(ids, attention_mask=mask, labels=labels)
    assert torch.allclose(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    output.loss.backward()
    assert all(weight.grad is not None for weight in loaded.parameters())
    loss, logits = loaded(ids, attention_mask=mask, labels=labels, return_dict=False)
    assert torch.equal(loss, output.loss) and torch.equal(logits, output.logits)


def test_configuration_is_registered(tmp_path: Path) -> None:
    save(make_student("bag"), tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, kdsearch.hf.KdsearchConfig)
    assert config.num_labels == 3 and config.shape["max_length"] == SHAPE.max_length


def test_long_texts_are_cut_as_the_tokenizer_cuts_them() -> None:
    # 1 ... 9 with the closing token 9; then a short text, padded
    ids = torch.tensor(
        [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 9, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 9, 0, 0, 0]]
    )
    mask = (ids > 0).long()
    cut_ids, cut_mask = shorten(ids, mask, max_length=5, closing=1)
    assert cut_ids.tolist() == [[1, 2, 3, 4, 9], [1, 2, 9, 0, 0], [1, 2, 3, 4, 9]]
    assert cut_mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0], [1] * 5]
    assert shorten(ids, mask, max_length=9, closing=1)[0] is ids
    assert shorten(ids, mask, max_length=5, closing=0)[0][0].tolist() == [1, 2, 3, 4, 5]


def test_a_text_longer_than_max_length_is_answered(tmp_path: Path) -> None:
    student = make_student("bert_small")
    save(student, tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.randint(1, SHAPE.vocab_size, (1, 20))
    cut = torch.cat([ids[:, : SHAPE.max_length - 1], ids[:, -1:]], dim=1)
    with torch.inference_mode():
        assert torch.equal(loaded(ids).logits, student(cut, torch.ones_like(cut)).logits_BC)
