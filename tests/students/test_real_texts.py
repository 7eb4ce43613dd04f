"""Students behind real tokenizers: empty texts, emoji, mixed scripts, Chinese, texts beyond the limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from kdsearch.data import tokens, vocabularies
from kdsearch.data.batches import collate
from kdsearch.data.dataset import Pool
from kdsearch.data.tokens import TokenPool
from kdsearch.students import STUDENTS
from kdsearch.students.base import Given, InputShape, Student
from kdsearch.students.building import build_student
from kdsearch.students.encoder import encoder_shape

MAX_LENGTH = 16
KNOWN = (
    "win a free prize now",
    "see you at lunch then",
    "中文新闻标题 分类",
    "call 08001234 to claim",
    "ok",
) * 2
TEXTS = (
    "",
    " \n\t ",
    "ok",
    "win a free prize now",
    "🎉",
    "👩‍👩‍👧‍👦🏳️‍🌈 free 🎉🎉🎉",
    "中文新闻标题",
    "see you 在北京 στην Αθήνα в Москве مرحبا שלום ไทย",
    "e\u0301moji \u200b\ufeff\u202etxet",
    "\x00\x07 \ud7ff \U0010ffff",
    "win a free prize now " * 40,
    "中" * 500,
    "w" * 3000,
)


def word_pieces() -> PreTrainedTokenizerFast:
    """As a BERT has one, learned from a few texts."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        KNOWN, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def tokenizer_of(kind: str) -> Any:
    if kind == "word pieces":
        return word_pieces()
    vocabulary, language = kind.split("/")
    return vocabularies.build(vocabulary, KNOWN, language=language, max_length=MAX_LENGTH)  # type: ignore[arg-type]


KINDS = ("word pieces", "words/en", "words/zh", "characters/en", "characters/zh")


@pytest.fixture(scope="module", params=KINDS)
def cut(request: pytest.FixtureRequest) -> tuple[TokenPool, np.ndarray, int]:
    """The texts as tokens, the id table of what occurs in the known texts, and the padding id."""
    tokenizer = tokenizer_of(request.param)
    known, pool = (
        tokens.tokenise(Pool("train", texts, np.full(len(texts), -1)), tokenizer, MAX_LENGTH)
        for texts in (KNOWN, TEXTS)
    )
    pad_id = tokenizer.pad_token_id
    return pool, tokens.id_table([known], len(tokenizer), tokenizer.all_special_ids, pad_id=pad_id), pad_id


def students(table: np.ndarray, pad_id: int) -> list[Student]:
    shape = InputShape(
        vocab_size=len(table),
        num_tokens=int(table.max()) + 1,
        num_labels=15,
        max_length=MAX_LENGTH,
        pad_id=pad_id,
    )
    built = []
    for name, student in STUDENTS.items():
        params = {}
        for key, param in student.SPACE.items():
            if param.exists(params):
                params[key] = param.default.values()[0]
        built.append(build_student(name, params, shape, table, seed=1).eval())
    return built


def test_every_text_has_one_answer_in_any_company_and_in_onnx(cut: tuple[TokenPool, np.ndarray, int]) -> None:
    pool, table, pad_id = cut
    rows = np.arange(len(TEXTS))
    assert pool.lengths.max() == MAX_LENGTH, "some texts are longer than the limit"
    for student in students(table, pad_id):
        batch = collate(pool, rows, pad_id=pad_id, device="cpu")
        session = onnxruntime.InferenceSession(student.onnx_model())
        with torch.no_grad():
            together = student(batch.input_ids_BT, batch.attention_mask_BT).logits_BC.numpy()
        assert np.isfinite(together).all()
        for row in rows:
            alone = collate(pool, np.asarray([row]), pad_id=pad_id, device="cpu")
            with torch.no_grad():
                answer = student(alone.input_ids_BT, alone.attention_mask_BT).logits_BC.numpy()
            query = {
                "input_ids": alone.input_ids_BT.numpy(),
                "attention_mask": alone.attention_mask_BT.numpy(),
            }
            drawn = session.run(["logits"], query)[0]
            np.testing.assert_allclose(answer[0], together[row], atol=1e-5, rtol=0)
            np.testing.assert_allclose(drawn, answer, atol=1e-4, rtol=0)


def test_texts_that_differ_in_known_tokens_are_answered_differently(
    cut: tuple[TokenPool, np.ndarray, int],
) -> None:
    pool, table, pad_id = cut
    chosen = np.asarray([TEXTS.index("ok"), TEXTS.index("win a free prize now"), TEXTS.index("中文新闻标题")])
    batch = collate(pool, chosen, pad_id=pad_id, device="cpu")
    for student in students(table, pad_id):
        with torch.no_grad():
            logits = student(batch.input_ids_BT, batch.attention_mask_BT).logits_BC
        distances = torch.pdist(logits)
        assert (distances > 1e-4).all(), (student.NAME, distances)


@pytest.mark.skipif(not os.environ.get("KDSEARCH_TEACHER"), reason="KDSEARCH_TEACHER is not set")
@torch.no_grad()
def test_a_real_teacher_whose_vocabulary_is_cut_keeps_its_states() -> None:
    folder = Path(os.environ["KDSEARCH_TEACHER"])
    encoder = encoder_shape(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pool = tokens.tokenise(Pool("train", TEXTS, np.full(len(TEXTS), -1)), tokenizer, MAX_LENGTH)
    table = tokens.id_table([pool], len(tokenizer), tokenizer.all_special_ids, pad_id=tokenizer.pad_token_id)
    shape = InputShape(
        vocab_size=len(table),
        num_tokens=int(table.max()) + 1,
        num_labels=2,
        max_length=MAX_LENGTH,
        pad_id=tokenizer.pad_token_id,
        encoder=encoder,
    )
    params = {"init": "teacher", "every": 1, "dropout": 0.0}
    student = build_student("bert_small", params, shape, table, given=Given(encoder=folder)).eval()
    teacher = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = collate(pool, np.arange(len(TEXTS)), pad_id=shape.pad_id, device="cpu")
    states = student.encoder(student.id_table[batch.input_ids_BT], batch.attention_mask_BT).last_hidden_state
    expected = teacher(batch.input_ids_BT, batch.attention_mask_BT).last_hidden_state
    mask = batch.attention_mask_BT > 0
    assert torch.equal(states[mask], expected[mask])
    assert len(student.onnx_model()) < 60e6
