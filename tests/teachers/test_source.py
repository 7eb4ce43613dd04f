"""Teachers from folders: what they are, their label order, their heads, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from kdsearch.core.errors import DataError
from kdsearch.data.tokens import TokenPool
from kdsearch.teachers import source
from kdsearch.teachers.signals import compute_logits
from kdsearch.teachers.source import TeacherModule

LABELS = ("ham", "spam", "odd")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def logits_of(module: TeacherModule, pool: TokenPool) -> np.ndarray:
    return compute_logits(module, pool, pad_id=0, device="cpu", breathe=lambda: None)


@pytest.fixture
def generic(tmp_path: Path, encoder: Path) -> Path:
    """A classifier that only knows LABEL_0, LABEL_1, LABEL_2."""
    folder = tmp_path / "generic"
    shutil.copytree(encoder, folder)
    config = BertConfig.from_pretrained(encoder)
    config.id2label = {i: f"LABEL_{i}" for i in range(3)}
    torch.manual_seed(4)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- describing


def test_an_encoder_does_not_classify(encoder: Path) -> None:
    found = source.describe(encoder)
    assert (found.classifies, found.labels, found.num_labels) == (False, None, None)
    assert (found.width, found.layers, found.max_tokens) == (16, 3, 24)
    assert (found.model_type, found.bert) == ("bert", True)


def test_a_classifier_names_its_labels_in_order(classifier: Path) -> None:
    found = source.describe(classifier)
    assert (found.classifies, found.labels, found.num_labels) == (True, LABELS, 3)


def test_generic_names_are_no_labels(generic: Path) -> None:
    found = source.describe(generic)
    assert (found.classifies, found.labels, found.num_labels) == (True, None, 3)


def test_a_regression_head_does_not_classify(tmp_path: Path) -> None:
    BertForSequenceClassification(BertConfig(vocab_size=30, num_labels=1, **SMALL)).save_pretrained(tmp_path)
    assert not source.describe(tmp_path).classifies


def test_the_real_teacher(minilm: Path, pool: TokenPool) -> None:
    found = source.describe(minilm)
    assert (found.classifies, found.width, found.layers, found.max_tokens) == (False, 384, 6, 512)
    module = source.load_encoder_for(minilm, LABELS, seed=1)
    source.freeze_all_but_last(module, 1)
    learning = [name for name, p in module.named_parameters() if p.requires_grad]
    assert learning and all(
        ".layer.5." in n or "pooler" in n or "classifier.weight" in n or "classifier.bias" in n
        for n in learning
    )
    tokenizer = source.load_tokenizer(minilm)
    encoded = tokenizer(["a good film", "a bad one, with more words"], padding=True, return_tensors="pt")
    module.eval()
    with torch.no_grad():
        output = module(encoded["input_ids"], encoded["attention_mask"])
    assert output.logits_BC.shape == (2, 3) and output.hidden_BD.shape == (2, 384)


def test_the_fingerprint_is_of_what_answers(encoder: Path, classifier: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    (copy / "README.md").write_text("other words")
    (copy / "onnx").mkdir()
    (copy / "onnx/model.onnx").write_bytes(b"x")
    assert source.fingerprint(copy) == source.fingerprint(encoder) != source.fingerprint(classifier)
    assert source.tokenizer_fingerprint(copy) == source.tokenizer_fingerprint(classifier)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert source.fingerprint(copy) != source.fingerprint(encoder)
    assert source.tokenizer_fingerprint(copy) == source.tokenizer_fingerprint(encoder)


# ---------------------------------------------------------------- label order


@pytest.mark.parametrize("labels", [("ham", "spam", "odd"), ("odd", "ham", "spam")])
def test_logits_come_in_the_label_order_of_the_study(classifier: Path, pool: TokenPool, labels) -> None:
    plain = logits_of(source.load_classifier(classifier, LABELS), pool)
    ordered = logits_of(source.load_classifier(classifier, labels), pool)
    assert np.array_equal(ordered, plain[:, [LABELS.index(label) for label in labels]])


def test_a_label_map_translates(classifier: Path, pool: TokenPool) -> None:
    mapped = source.load_classifier(
        classifier, ("merkwürdig", "ham", "Müll"), label_map={"spam": "Müll", "odd": "merkwürdig"}
    )
    plain = logits_of(source.load_classifier(classifier, LABELS), pool)
    assert np.array_equal(logits_of(mapped, pool), plain[:, [2, 0, 1]])


@pytest.mark.parametrize(
    ("labels", "label_map", "match"),
    [
        (("ham", "spam"), None, "has the labels"),
        (("ham", "spam", "else"), None, "has the labels"),
        (("ham", "spam", "odd", "more"), None, "has the labels"),
        (("ham", "spam", "odd"), {"spam": "ham"}, "has the labels"),
        (("ham", "ham", "odd"), {"spam": "ham"}, "one name for several"),
        (("ham", "spam", "odd"), {"spma": "spam"}, "no label 'spma'"),
    ],
)
def test_other_labels_are_an_error(classifier: Path, labels, label_map, match: str) -> None:
    with pytest.raises(DataError, match=match) as error:
        source.load_classifier(classifier, labels, label_map=label_map)
    assert error.value.hint


def test_generic_labels_need_a_map(generic: Path, pool: TokenPool) -> None:
    with pytest.raises(DataError, match="LABEL_0") as error:
        source.load_classifier(generic, LABELS)
    assert "label_map: {LABEL_0: ham" in error.value.hint
    label_map = {"LABEL_0": "spam", "LABEL_1": "odd", "LABEL_2": "ham"}
    direct = source.load_classifier(generic, ("spam", "odd", "ham"), label_map=label_map)
    ordered = source.load_classifier(generic, LABELS, label_map=label_map)
    assert np.array_equal(logits_of(ordered, pool), logits_of(direct, pool)[:, [2, 0, 1]])


def test_an_encoder_is_no_classifier(encoder: Path) -> None:
    with pytest.raises(DataError, match="does not classify"):
        source.load_classifier(encoder, LABELS)


# ---------------------------------------------------------------- heads, freezing, saving


def test_a_fresh_head_depends_on_the_seed_alone(encoder: Path, classifier: Path) -> None:
    torch.manual_seed(1)
    first = source.load_encoder_for(encoder, LABELS, seed=3).state_dict()
    torch.manual_seed(2)
    again = source.load_encoder_for(encoder, LABELS, seed=3).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    other = source.load_encoder_for(encoder, LABELS, seed=4).state_dict()
    assert {k for k in first if not torch.equal(first[k], other[k])} == {"classifier.classifier.weight"}
    refreshed = source.load_encoder_for(classifier, LABELS, seed=3).state_dict()
    head = "classifier.classifier.weight"
    assert torch.equal(first[head], refreshed[head]), "a head that is there is not kept"


def test_the_encoder_keeps_its_weights_under_a_fresh_head(encoder: Path) -> None:
    from safetensors.torch import load_file

    stored = load_file(encoder / "model.safetensors")
    module = source.load_encoder_for(encoder, ("a", "b"), seed=3)
    loaded = module.classifier.base_model.state_dict()
    assert len(stored) > 40 and all(torch.equal(stored[name], loaded[name]) for name in stored)


def test_an_encoder_without_pooler_gets_a_head_too(tmp_path: Path, pool: TokenPool) -> None:
    config = RobertaConfig(vocab_size=200, max_position_embeddings=60, pad_token_id=0, **SMALL)
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    module = source.load_encoder_for(tmp_path, LABELS, seed=1)
    assert logits_of(module, pool).shape == (len(pool), 3)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_only_the_last_layers_learn(encoder: Path, k: int) -> None:
    module = source.load_encoder_for(encoder, LABELS, seed=1)
    source.freeze_all_but_last(module, k)
    learning = {name for name, p in module.named_parameters() if p.requires_grad}
    layers = {int(name.split(".layer.")[1].split(".")[0]) for name in learning if ".layer." in name}
    assert layers == set(range(3 - k, 3))
    assert not any("embeddings" in name for name in learning)
    assert {"classifier.classifier.weight", "classifier.bert.pooler.dense.weight"} <= learning


def test_a_norm_behind_the_last_layer_goes_on_learning(tmp_path: Path) -> None:
    sizes = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **SMALL}
    ModernBertModel(ModernBertConfig(**sizes)).save_pretrained(tmp_path)
    module = source.load_encoder_for(tmp_path, LABELS, seed=1)
    source.freeze_all_but_last(module, 1)
    learning = {name for name, p in module.named_parameters() if p.requires_grad}
    assert "classifier.model.final_norm.weight" in learning
    assert {n.split(".layers.")[1][0] for n in learning if ".layers." in n} == {"1"}
    assert not any("embeddings" in name for name in learning)
    assert not source.describe(tmp_path).bert


def test_more_layers_than_there_are_cannot_be_chosen(encoder: Path) -> None:
    with pytest.raises(DataError, match="3 encoder layers"):
        source.freeze_all_but_last(source.load_encoder_for(encoder, LABELS, seed=1), 4)


def test_a_saved_teacher_is_the_same_teacher(encoder: Path, pool: TokenPool, tmp_path: Path) -> None:
    module = source.load_encoder_for(encoder, LABELS, seed=5)
    source.save_teacher(module, source.load_tokenizer(encoder), tmp_path / "saved")
    again = source.load_classifier(tmp_path / "saved", LABELS)
    assert np.array_equal(logits_of(module, pool), logits_of(again, pool))
    assert source.load_tokenizer(tmp_path / "saved")("win a prize") == source.load_tokenizer(encoder)(
        "win a prize"
    )


def test_padding_never_reaches_the_pooled_vector(classifier: Path) -> None:
    module = source.load_classifier(classifier, LABELS)
    ids = torch.tensor([[2, 7, 9, 3]])
    padded, mask = torch.nn.functional.pad(ids, (0, 5), value=8), torch.tensor([[1] * 4 + [0] * 5])
    with torch.no_grad():
        short, long = module(ids, torch.ones_like(ids)), module(padded, mask)
    torch.testing.assert_close(short.logits_BC, long.logits_BC)
    torch.testing.assert_close(short.hidden_BD, long.hidden_BD)


# ---------------------------------------------------------------- finding, and what is refused


def test_a_folder_is_found_from_the_study_file(encoder: Path) -> None:
    assert source.resolve("encoder", encoder.parent) == encoder.resolve()
    assert source.resolve(str(encoder), Path("/")) == encoder.resolve()


@pytest.mark.parametrize("model", ["./nowhere", "/no/such/folder", "a/b/c"])
def test_a_missing_folder_is_named(tmp_path: Path, model: str) -> None:
    with pytest.raises(DataError, match="no such folder"):
        source.resolve(model, tmp_path)


def test_a_hub_id_that_cannot_be_fetched_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="nobody/such-teacher") as error:
        source.resolve("nobody/such-teacher", tmp_path)
    assert "local folder" in error.value.hint


def test_pickled_weights_are_never_loaded(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(encoder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "pytorch_model.bin").write_bytes(b"whatever")
    with pytest.raises(DataError, match="safetensors in it"):
        source.describe(folder)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (None, "no config.json"),
        ("{}", "cannot read"),
        ("not json", "cannot read"),
        (json.dumps({"model_type": "nothing-known"}), "cannot read"),
        (json.dumps({"model_type": "resnet"}), "not a text encoder"),
    ],
)
def test_folders_that_are_no_encoder_are_refused(tmp_path: Path, config: str | None, match: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(DataError, match=match) as error:
        source.describe(tmp_path)
    assert error.value.hint


def test_code_from_a_folder_is_never_run(tmp_path: Path) -> None:
    auto = {"AutoConfig": "evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\nclass Evil: ...\n")
    with pytest.raises(DataError):
        source.describe(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_folder_without_a_tokenizer_is_an_error(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(encoder, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(DataError, match="tokenizer"):
        source.load_tokenizer(folder)


# ---------------------------------------------------------------- word pieces for students


def test_the_word_table_holds_the_teachers_vectors_under_compact_ids(encoder: Path) -> None:
    from safetensors.torch import load_file

    weight = load_file(encoder / "model.safetensors")["embeddings.word_embeddings.weight"].numpy()
    id_table = np.ones(len(weight) + 3, np.int64)  # a tokenizer may have more ids than there are vectors
    id_table[[0, 5, 9]] = [0, 2, 3]
    table = source.word_table(encoder, id_table, 4)
    assert (table.shape, table.dtype) == ((4, 16), np.float32)
    assert not table[0].any()
    assert np.array_equal(table[2:], weight[[5, 9]])
    unknown = np.delete(weight, [0, 5, 9], axis=0)
    np.testing.assert_allclose(table[1], unknown.mean(axis=0), atol=1e-6)


def test_a_word_table_without_anything_unknown_is_finite(encoder: Path) -> None:
    table = source.word_table(encoder, np.asarray([0, 2, 3], np.int64), 4)
    assert np.isfinite(table).all() and not table[:2].any()


@pytest.mark.parametrize("key", ["teacher.model", "teachers[1].model", "pretrained.encoder"])
def test_a_folder_that_is_not_there_is_told_by_its_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError) as error:
        source.resolve("./nowhere", tmp_path, key=key)
    assert error.value.hint == f"check `{key}`"
    assert key == "teacher.model" or error.value.what.startswith(key)
