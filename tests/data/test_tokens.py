"""Tokenised pools: the tokenizer's own ids, kept through files and joins; compact ids lose nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from kdsearch.core.errors import ArtifactError
from kdsearch.data.dataset import Pool
from kdsearch.data.tokens import PADDING, UNKNOWN, TokenPool, concat, id_table, tokenise

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "buy", "it", "do", "not", "wait", "never"]
TEXTS = ("buy it do not wait", "", "wait wait unheard", "never")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    raw.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture
def pool(tokenizer: PreTrainedTokenizerFast) -> TokenPool:
    return tokenise(Pool("train", TEXTS, np.array([1, 0, -1, 1])), tokenizer, max_length=6)


def test_rows_are_the_tokenizers_own_ids_cut_with_their_special_tokens(
    pool: TokenPool, tokenizer: PreTrainedTokenizerFast
) -> None:
    for i, text in enumerate(TEXTS):
        assert pool.row(i).tolist() == tokenizer(text, truncation=True, max_length=6)["input_ids"]
    assert pool.row(0).tolist() == [2, 4, 5, 6, 7, 3]
    assert pool.lengths.tolist() == [6, 2, 5, 3]
    assert pool.labels_N.tolist() == [1, 0, -1, 1]


def test_texts_beyond_one_chunk_keep_their_places(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, pool: TokenPool
) -> None:
    monkeypatch.setattr("kdsearch.data.tokens.ROWS_AT_ONCE", 3)
    chunked = tokenise(Pool("train", TEXTS, pool.labels_N), tokenizer, max_length=6)
    assert chunked.ids.tolist() == pool.ids.tolist()
    assert chunked.offsets.tolist() == pool.offsets.tolist()


def test_keys_are_hashes_of_the_texts_and_know_nothing_of_rows(pool: TokenPool) -> None:
    assert [bytes(key) for key in pool.keys] == [hashlib.sha256(text.encode()).digest() for text in TEXTS]


def test_an_empty_pool_is_a_pool(tokenizer: PreTrainedTokenizerFast) -> None:
    empty = tokenise(Pool("test", (), np.empty(0, np.int64)), tokenizer, max_length=6)
    assert len(empty) == 0
    assert empty.keys.shape == (0, 32)


def test_saved_and_loaded_is_the_same_and_equal_pools_give_equal_bytes(
    pool: TokenPool, tmp_path: Path
) -> None:
    pool.save(tmp_path / "a.npz")
    loaded = TokenPool.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert loaded.name == pool.name
    for field in ("ids", "offsets", "labels_N", "keys"):
        kept, written = getattr(loaded, field), getattr(pool, field)
        assert kept.dtype == written.dtype
        assert kept.tolist() == written.tolist()


def test_a_damaged_or_pickled_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "pickled.npz", name=np.array([object()]))
    for name in ("cut.npz", "pickled.npz", "absent.npz"):
        with pytest.raises(ArtifactError, match=name):
            TokenPool.load(tmp_path / name)


def test_joined_pools_keep_rows_labels_and_keys_in_order(pool: TokenPool) -> None:
    joined = concat([pool, pool], "both")
    assert joined.name == "both"
    assert len(joined) == 8
    for i in range(8):
        assert joined.row(i).tolist() == pool.row(i % 4).tolist()
    assert joined.labels_N.tolist() == pool.labels_N.tolist() * 2
    assert joined.keys.tolist() == pool.keys.tolist() * 2
    assert joined.offsets.dtype == np.int64


def test_compact_ids_are_dense_and_tell_occurring_tokens_apart(pool: TokenPool) -> None:
    table = id_table([pool], len(VOCABULARY) + 5, [0, 1, 2, 3], pad_id=0)
    occurring = sorted({*pool.ids.tolist(), 1, 2, 3} - {0})
    assert table[0] == PADDING
    assert table[occurring].tolist() == list(range(2, 2 + len(occurring)))
    absent = [i for i in range(1, len(table)) if i not in occurring]
    assert set(table[absent].tolist()) == {UNKNOWN}
    assert table.dtype == np.int64


def test_compact_padding_is_0_whichever_id_pads(pool: TokenPool) -> None:
    table = id_table([pool], len(VOCABULARY), [2, 3, 9], pad_id=9)
    assert table[9] == PADDING
    assert (table == PADDING).sum() == 1
    assert set(table.tolist()) - {UNKNOWN} == {0, *range(2, table.max() + 1)}, "no compact id is wasted"
