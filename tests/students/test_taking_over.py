"""What a student takes over from a teacher, a checkpoint or a file of vectors is exact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from kdsearch.core.errors import DataError
from kdsearch.core.facts import Facts
from kdsearch.data.tokens import PADDING, UNKNOWN
from kdsearch.students import STUDENTS
from kdsearch.students.base import Given, InputShape, Student
from kdsearch.students.building import build_student, load_student, save_student, wants
from kdsearch.students.encoder import ACTIVATIONS, encoder_shape

VOCAB, ROWS, LENGTH = 60, 25, 12
OCCUR = np.random.default_rng(0).choice(np.arange(1, VOCAB), ROWS - 2, replace=False)
"""Ids that have a row of their own."""
WORDS: dict[str, dict[str, Any]] = {
    "bag": {"hidden": 8, "dropout": 0.0},
    "textcnn": {"filters": 4, "kernel_sizes": (2, 3), "dropout": 0.0},
    "bilstm": {"hidden": 4, "layers": 1, "input": "tokens", "pooling": "max", "dropout": 0.0},
}


def id_table() -> np.ndarray:
    table = np.full(VOCAB, UNKNOWN, np.int64)
    table[np.sort(OCCUR)] = np.arange(UNKNOWN + 1, ROWS)
    table[0] = PADDING
    return table


def make_bert(folder: Path, *, classifier: bool = False, **config: Any) -> nn.Module:
    """A BERT of four layers whose weights are large enough to tell every one of them apart."""
    full = BertConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=30,
        **config,
    )
    torch.manual_seed(4)
    bert = BertForSequenceClassification(full) if classifier else BertModel(full)
    for parameter in bert.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    bert.save_pretrained(folder)
    return bert.eval()


def shape_of(folder: Path | None, **changed: Any) -> InputShape:
    encoder = None if folder is None else encoder_shape(folder)
    shape = InputShape(
        vocab_size=VOCAB, num_tokens=ROWS, num_labels=3, max_length=LENGTH, pad_id=0, encoder=encoder
    )
    return replace(shape, **changed)


def bert_student(folder: Path, **params: Any) -> Student:
    values = {"init": "teacher", "dropout": 0.0, **params}
    return build_student(
        "bert_small", values, shape_of(folder), id_table(), given=Given(encoder=folder)
    ).eval()


def texts(rows: int = 6) -> tuple[Tensor, Tensor]:
    """Texts of tokens that occur, of every length up to the limit."""
    rng = np.random.default_rng(1)
    lengths = torch.from_numpy(rng.integers(1, LENGTH + 1, rows))
    mask = (torch.arange(LENGTH) < lengths.unsqueeze(1)).long()
    return torch.from_numpy(rng.choice(OCCUR, (rows, LENGTH))) * mask, mask


# ---------------------------------------------------------------- layers of a BERT


@pytest.mark.parametrize("classifier", [False, True])
@pytest.mark.parametrize("params", [{"every": 1}, {"init": "checkpoint"}], ids=str)
@torch.no_grad()
def test_all_layers_give_exactly_the_states_of_the_teacher(
    classifier: bool, params: dict[str, Any], tmp_path: Path
) -> None:
    bert = make_bert(tmp_path, classifier=classifier)
    student = bert_student(tmp_path, **params)
    ids, mask = texts()
    states = student.encoder(student.id_table[ids], mask).last_hidden_state
    expected = (bert.bert if classifier else bert)(ids, mask).last_hidden_state
    assert torch.equal(states[mask > 0], expected[mask > 0])
    assert student.encoder.embeddings.word_embeddings.weight.shape == (ROWS, 16)
    assert student.encoder.embeddings.position_embeddings.weight.shape == (LENGTH, 16)
    assert student.width == 16


@torch.no_grad()
def test_every_second_layer_are_the_second_and_the_fourth(tmp_path: Path) -> None:
    bert = make_bert(tmp_path)
    student = bert_student(tmp_path, every=2)
    bert.encoder.layer = nn.ModuleList([bert.encoder.layer[1], bert.encoder.layer[3]])
    ids, mask = texts()
    states = student.encoder(student.id_table[ids], mask).last_hidden_state
    assert torch.equal(states[mask > 0], bert(ids, mask).last_hidden_state[mask > 0])
    assert [len(bert_student(tmp_path, every=k).encoder.encoder.layer) for k in (1, 2, 3, 4)] == [4, 2, 1, 1]
    with pytest.raises(ValueError, match="every 5"):
        bert_student(tmp_path, every=5)


@torch.no_grad()
def test_words_that_do_not_occur_are_their_average_and_padding_is_zero(tmp_path: Path) -> None:
    source = make_bert(tmp_path).embeddings.word_embeddings.weight
    words = bert_student(tmp_path, every=4).encoder.embeddings.word_embeddings.weight
    others = np.setdiff1d(np.arange(1, VOCAB), OCCUR)
    torch.testing.assert_close(words[UNKNOWN], source[others].mean(0))
    assert not words[PADDING].any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onnx_equals_forward_for_every_activation(activation: str, tmp_path: Path) -> None:
    make_bert(tmp_path, hidden_act=activation, layer_norm_eps=1e-3)
    student = bert_student(tmp_path, every=2)
    for parameter in student.encoder.encoder.parameters():
        parameter.data *= 2  # far from zero, where the activations differ
    ids, mask = texts()
    session = onnxruntime.InferenceSession(student.onnx_model())
    found = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
    np.testing.assert_allclose(found, student(ids, mask).logits_BC.detach().numpy(), atol=1e-4, rtol=0)


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "distilbert"),
        ("hidden_act", "silu"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
    ],
)
def test_a_bert_that_no_student_can_be_made_of_is_refused(key: str, value: object, tmp_path: Path) -> None:
    make_bert(tmp_path)
    change_config(tmp_path, **{key: value})
    with pytest.raises(DataError, match=f"`{key}` is {value!r}") as caught:
        encoder_shape(tmp_path)
    assert caught.value.hint


def test_what_is_no_folder_of_a_bert_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json"):
        encoder_shape(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match="no JSON object"):
        encoder_shape(tmp_path)


def test_an_encoder_without_its_weights_or_of_other_tokens_says_so(tmp_path: Path) -> None:
    make_bert(tmp_path)
    shape, params = shape_of(tmp_path), {"init": "checkpoint", "dropout": 0.0}
    more = replace(shape, vocab_size=VOCAB + 1)
    with pytest.raises(DataError, match="60 word vectors for a tokenizer of 61 ids"):
        build_student("bert_small", params, more, None, given=Given(encoder=tmp_path))
    with pytest.raises(DataError, match="up to 31 tokens, the encoder 30 positions"):
        build_student("bert_small", params, replace(shape, max_length=31), None)
    change_config(tmp_path, num_hidden_layers=5)
    with pytest.raises(DataError, match="weights of its encoder are missing"):
        build_student("bert_small", params, shape, None, given=Given(encoder=tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        build_student("bert_small", params, shape, None, given=Given(encoder=tmp_path))


def test_a_student_with_an_encoder_needs_its_shape() -> None:
    with pytest.raises(ValueError, match="the shape says None"):
        build_student("bert_small", {"init": "checkpoint", "dropout": 0.0}, shape_of(None), None)


def test_a_saved_student_is_read_without_its_teacher(tmp_path: Path) -> None:
    make_bert(tmp_path / "bert")
    student = bert_student(tmp_path / "bert", every=2)
    save_student(student, tmp_path / "student", ("a", "b", "c"))
    (tmp_path / "bert" / "config.json").unlink()
    again = load_student(tmp_path / "student").student
    assert again.shape == student.shape
    query = texts()
    assert torch.equal(again(*query).logits_BC, student(*query).logits_BC)


# ---------------------------------------------------------------- word vectors


def vectors(width: int = 7) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(ROWS, width)).astype(np.float32)


def word_student(name: str, channels: str) -> Student:
    params = {**WORDS[name], "embedding": "vectors", "vocabulary": "words", "channels": channels}
    shape = shape_of(None, embedding_width=7)
    return build_student(name, params, shape, id_table(), given=Given(embedding_VE=vectors()))


def step(student: Student, rate: float = 0.1) -> None:
    """One step on texts of tokens that occur, on padding and on nothing, with weight decay."""
    ids, mask = texts()
    ids[0, 0] = 0  # padding written out in a text, as an adversary may
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=0.1)
    nn.functional.cross_entropy(student(ids, mask).logits_BC, torch.arange(6) % 3).backward()
    optimizer.step()


CASES = [(name, c) for name in WORDS for c in STUDENTS[name].SPACE["channels"].allowed]


@pytest.mark.parametrize(("name", "channels"), CASES)
def test_given_vectors_are_taken_over_and_trained_as_the_channels_say(name: str, channels: str) -> None:
    student = word_student(name, channels)
    expected = torch.from_numpy(vectors())
    expected[PADDING] = 0.0
    tables = [student.embedding.weight, *([student.embedding.fixed] if channels == "multichannel" else [])]
    assert all(torch.equal(table, expected) for table in tables)
    step(student)
    moved = [not torch.equal(table, expected) for table in tables]
    assert moved == {"static": [False], "non-static": [True], "multichannel": [True, False]}[channels]
    assert not any(table[PADDING].any() for table in tables)


@pytest.mark.parametrize("name", WORDS)
def test_padding_stays_zero_where_vectors_start_at_random(name: str) -> None:
    student = build_student(name, {**WORDS[name], "embed_dim": 6}, shape_of(None), id_table())
    before = student.embedding.weight.detach().clone()
    step(student)
    assert not torch.equal(before, student.embedding.weight)
    assert not student.embedding.weight[PADDING].any()


@torch.no_grad()
def test_two_channels_are_a_convolution_of_each_added() -> None:
    student = word_student("textcnn", "multichannel").eval()
    student.embedding.weight.mul_(-2.0)  # as after training: the channels differ
    ids, mask = texts()
    size = student.convolutions[1].kernel_size[0]
    trained, fixed = student.convolutions[1].weight.split(7, dim=1)
    rows = student.id_table[ids]
    windows = sum(
        nn.functional.conv1d(
            nn.functional.pad((table[rows] * mask.unsqueeze(2)).transpose(1, 2), (1, size // 2)), weight
        )
        for table, weight in ((student.embedding.weight, trained), (student.embedding.fixed, fixed))
    )
    values = (windows + student.convolutions[1].bias.view(1, -1, 1)) * mask.unsqueeze(1)
    hidden = student(ids, mask).hidden_BD[:, 4:]
    torch.testing.assert_close(hidden, values.amax(2).relu(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_sentence_mean_feeds_one_vector_to_one_bidirectional_step() -> None:
    params = {
        "hidden": 5, "layers": 1, "embedding": "vectors", "vocabulary": "words", "channels": "static",
        "input": "sentence_mean", "dropout": 0.0,
    }  # fmt: skip
    shape = shape_of(None, embedding_width=7)
    given = Given(embedding_VE=vectors())
    student = build_student("bilstm", params, shape, id_table(), given=given).eval()
    ids, mask = texts()
    hidden = student(ids, mask).hidden_BD
    for row, length in enumerate(mask.sum(1).tolist()):
        mean = torch.from_numpy(vectors()[id_table()[ids[row, :length].numpy()]].mean(0)).view(1, 1, -1)
        states = [lstm(mean)[0][0, 0] for lstm in (student.forwards[0], student.backwards[0])]
        torch.testing.assert_close(hidden[row], torch.cat(states), atol=1e-5, rtol=0)


def test_vectors_of_another_size_are_refused() -> None:
    params = {**WORDS["bag"], "embedding": "teacher", "channels": "static"}
    with pytest.raises(ValueError, match="word vectors"):
        build_student("bag", params, shape_of(None, embedding_width=6), None, given=Given(vectors()))
    with pytest.raises(ValueError, match="no width"):
        build_student("bag", params, shape_of(None), None)


# ---------------------------------------------------------------- what a study offers

NOTHING = Facts(
    num_labels=2, pools=("train",), epochs=3, anchors=0, num_historical=0, teacher_width=None,
    teacher_layers=None, bert_teacher=False, vector_width=None, encoder_layers=None,
)  # fmt: skip


def test_the_space_is_narrowed_to_what_the_study_has() -> None:
    rich = replace(
        NOTHING, teacher_width=384, teacher_layers=2, bert_teacher=True, vector_width=300, encoder_layers=4
    )
    for name, student in STUDENTS.items():
        assert student.refusal(NOTHING) is None, name
        assert list(student.space(NOTHING)) == list(student.SPACE) == list(student.space(rich))
    for name in WORDS:
        origin = {facts: STUDENTS[name].space(facts)["embedding"].allowed for facts in (NOTHING, rich)}
        assert origin == {NOTHING: ("random",), rich: ("random", "teacher", "vectors")}
    assert STUDENTS["bert_small"].space(NOTHING)["init"].allowed == ("config",)
    space = STUDENTS["bert_small"].space(rich)
    assert space["init"].allowed == ("config", "teacher", "checkpoint")
    assert space["every"].default.values() == (2,) and not space["every"].accepts(3)
    shallow = STUDENTS["bert_small"].space(replace(rich, teacher_layers=1))["every"]
    assert shallow.default.values() == (1,) and all(map(shallow.accepts, shallow.default.values()))


def test_wants_follow_the_parameters() -> None:
    assert wants("bag", {}) == ("teacher", "random", "")
    assert wants("textcnn", {"embedding": "teacher"}) == ("teacher", "teacher", "")
    words = {"embedding": "vectors", "vocabulary": "words"}
    assert wants("bilstm", words) == ("words", "vectors", "")
    assert wants("bert_small", {"init": "config"}) == ("teacher", "random", "")
    assert wants("bert_small", {"init": "teacher", "every": 2}).encoder == "teacher"
    assert wants("bert_small", {"init": "checkpoint"}).encoder == "checkpoint"
