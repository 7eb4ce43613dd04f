"""Word vectors: read as gensim reads them, every damage named with its line; tables that use them exactly."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdsearch.core.errors import DataError
from kdsearch.data.dataset import Pool
from kdsearch.data.tokens import TokenPool, id_table, tokenise
from kdsearch.data.vectors import WordVectors, read_vectors, table, token_counts, vector_width
from kdsearch.data.vocabularies import build

LINES = ["4 3", "the 0.5 -1 2e-1", "film 1 2 3", "中国 0 0 1.5", "café -0.25 0.125 7"]
TEXTS = ("the film", "the other film", "the other rare one", "the film 😀", "")


def written(folder: Path, lines: list[str], *, zipped: bool = False) -> Path:
    content = ("\n".join(lines) + "\n").encode()
    path = folder / "some.vec"
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "lines", [LINES, LINES[1:], [LINES[0], "", *LINES[1:]]], ids=["header", "bare", "gap"]
)
def test_words_and_vectors_are_those_of_the_file(tmp_path: Path, lines: list[str], zipped: bool) -> None:
    path = written(tmp_path, lines, zipped=zipped)
    found = read_vectors(path)
    assert found.words == ("the", "film", "中国", "café")
    assert found.vectors_VE.dtype == np.float32
    assert found.vectors_VE[0].tolist() == pytest.approx([0.5, -1, 0.2])
    assert found.vectors_VE[3].tolist() == [-0.25, 0.125, 7]
    assert found.width == vector_width(path) == 3


def test_gensim_reads_the_same(tmp_path: Path) -> None:
    from gensim.models import KeyedVectors

    words = ["w", "中文", "'s", "naïve", "3.5", "a/b"]
    vectors = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    gensim = KeyedVectors(20)
    gensim.add_vectors(words, vectors)
    gensim.save_word2vec_format(str(tmp_path / "x.vec"), binary=False)
    theirs = KeyedVectors.load_word2vec_format(str(tmp_path / "x.vec"), binary=False)
    ours = read_vectors(tmp_path / "x.vec")
    assert list(ours.words) == theirs.index_to_key
    assert np.array_equal(ours.vectors_VE, theirs.vectors)


def test_only_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    found = read_vectors(written(tmp_path, LINES), only={"中国", "film", "absent", "\ud83d"})
    assert found.words == ("film", "中国")
    none = read_vectors(written(tmp_path, LINES), only=())
    assert (none.words, none.vectors_VE.shape) == ((), (0, 3))


def test_tabs_doubles_and_words_with_spaces_do_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path, ["a\t1\t2", "b  3 4 ", ". . 5 6", "a 9 9"])
    found = read_vectors(path)
    assert found.words == ("a", "b", ". .")
    assert found.vectors_VE.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_words_that_are_not_utf8_are_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "x.vec").write_bytes(b"2 2\nok 1 2\n\xff\xfe 3 4\n")
    assert read_vectors(tmp_path / "x.vec").words[0] == "ok"


@pytest.mark.parametrize(
    ("lines", "message", "line"),
    [
        (["3 2", "a 1 2", "b 1", "c 1 2"], "1 numbers instead of 2", 3),
        (["2 2", "a 1 2", "b 1 x"], "not a vector of numbers", 3),
        (["a 1 2", "b 1 nan"], "NaN or infinity", 2),
        (["2 2", "a 1 2 3", "b 1 2 3"], "'a 1 2 3' is not a word and 2 numbers", 2),
        (["2 3", "a 1 2", "b 1 2"], "'a 1 2' is not a word and 3 numbers", 2),
        ([""], "'' is not a word and its numbers", 1),
        (["nonsense"], "'nonsense' is not a word and its numbers", 1),
        (["5 2"], "'' is not a word and 2 numbers", 2),
    ],
)
def test_a_damage_is_named_with_its_line(tmp_path: Path, lines: list[str], message: str, line: int) -> None:
    path = written(tmp_path, lines)
    with pytest.raises(DataError) as caught:
        read_vectors(path)
    assert message in caught.value.what
    assert caught.value.where is not None
    assert (caught.value.where.file, caught.value.where.line) == (str(path), line)
    assert caught.value.hint


def test_a_file_that_ends_too_early_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 words instead of the 9 of its first line"):
        read_vectors(written(tmp_path, ["9 3", *LINES[1:]]))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        vector_width(tmp_path / "absent.vec")
    with pytest.raises(DataError, match="cannot be read"):
        read_vectors(tmp_path)
    path = written(tmp_path, [f"w{i} {i} 0.123" for i in range(5000)], zipped=True)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="damaged gzip"):
        read_vectors(path)


def test_the_binary_form_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"2 3\nthe " + np.array([1, 2, 3], np.float32).tobytes() + b"film ")
    with pytest.raises(DataError) as caught:
        read_vectors(tmp_path / "x.bin")
    assert "binary" in caught.value.hint


# ---------------------------------------------------------------- tables


def prepared(vectors: WordVectors) -> tuple[Any, Any, TokenPool]:
    tokenizer = build("words", TEXTS, language="en", max_length=8, known=vectors.words)
    pool = tokenise(Pool("train", TEXTS, np.zeros(len(TEXTS), np.int64)), tokenizer, 8)
    ids = id_table([pool], len(tokenizer), tokenizer.all_special_ids, pad_id=tokenizer.pad_token_id)
    return tokenizer, ids, pool


def vectors_of(*words: str) -> WordVectors:
    drawn = np.random.default_rng(len(words)).normal(2, 3, (len(words), 50))
    return WordVectors(words, drawn.astype(np.float32))


def made(vectors: WordVectors, *, seed: int = 0) -> tuple[Any, Any, np.ndarray[Any, Any], float]:
    tokenizer, ids, pool = prepared(vectors)
    counts = token_counts([pool], len(tokenizer))
    made_table, share = table(tokenizer, ids, int(ids.max()) + 1, vectors, counts=counts, seed=seed)
    return tokenizer, ids, made_table, share


def test_every_known_word_has_its_vector_and_padding_is_zero() -> None:
    vectors = vectors_of("film", "the", "elsewhere", "one")
    tokenizer, ids, rows, _ = made(vectors)
    assert rows.dtype == np.float32
    assert rows.shape == (ids.max() + 1, 50)
    assert not rows[ids[tokenizer.pad_token_id]].any()
    for word in ("film", "the", "one"):
        row = rows[ids[tokenizer.convert_tokens_to_ids(word)]]
        assert np.array_equal(row, vectors.vectors_VE[vectors.words.index(word)])


def test_other_rows_are_drawn_by_seed_with_the_variance_of_the_vectors() -> None:
    vectors = vectors_of("film", "the")
    tokenizer, ids, rows, _ = made(vectors)
    unknown = ids[tokenizer.convert_tokens_to_ids(["other", "[UNK]", "[MASK]"])]
    assert len(set(unknown)) == 3
    bound = np.sqrt(3 * vectors.vectors_VE.var())
    assert 0.9 * bound < abs(rows[unknown]).max() <= bound
    assert rows[unknown].std() == pytest.approx(vectors.vectors_VE.std(), rel=0.15)
    assert np.array_equal(rows, made(vectors)[2])
    assert not np.array_equal(rows[unknown], made(vectors, seed=1)[2][unknown])


def test_the_share_without_a_vector_counts_running_words() -> None:
    # the ×4, film ×3, other ×2 are words; rare, one, 😀 are unknown, once each
    assert made(vectors_of("the", "film"))[3] == pytest.approx(5 / 12)
    assert made(vectors_of("the", "film", "other", "rare", "one"))[3] == pytest.approx(1 / 12)
    assert made(vectors_of())[3] == 1.0


def test_masked_words_and_padding_are_not_counted() -> None:
    vectors = vectors_of("the", "film")
    tokenizer, ids, pool = prepared(vectors)
    counts = token_counts([pool], len(tokenizer))
    counts[[tokenizer.mask_token_id, tokenizer.pad_token_id]] = 1000
    assert table(tokenizer, ids, int(ids.max()) + 1, vectors, counts=counts, seed=0)[1] == pytest.approx(
        5 / 12
    )


def test_counts_are_those_of_all_pools() -> None:
    tokenizer, _, pool = prepared(vectors_of("the"))
    counts = token_counts([pool, pool], len(tokenizer))
    assert counts[tokenizer.convert_tokens_to_ids("the")] == 8
    assert counts.sum() == 2 * len(pool.ids)
