"""Vocabularies: ordinary tokenizers of words or characters that segment from their own file alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from kdsearch.core.errors import DataError
from kdsearch.data.vocabularies import build, count

KINDS = [("words", "en"), ("characters", "en"), ("words", "zh"), ("characters", "zh")]
ENGLISH = [
    "Don't stop, it's a well-made film.",
    "do n't stop: it 's 3.5 of 5 😀",
    "Café and naïve café, naïve film",
]
CHINESE = ["中国第一经济大省", "中国的手机，第一的手机！", "经济第一：iPhone 手机 iphone", "大省的经济 3.5%"]
ODD = [
    "",
    " \t\n",
    "film",
    "😀👩‍👩‍👧",
    "ＦＩＬＭ ﬁlm",
    "中国 film 手机 カタカナ 한국어 עברית",
    "e\u0301\u200b\x00",
    "a" * 500,
    "[MASK] [PAD] [UNK]",
    "😀" * 300,
]


def built(kind: Any, language: Any, **options: Any) -> Any:
    texts = ENGLISH if language == "en" else CHINESE
    return build(kind, texts, language=language, max_length=32, **options)


def tokens(tokenizer: Any, text: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def vocabulary(request: pytest.FixtureRequest) -> Any:
    return built(*request.param)


# ---------------------------------------------------------------- every vocabulary


def test_a_saved_vocabulary_is_the_same_one(vocabulary: Any, tmp_path: Path) -> None:
    vocabulary.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.is_fast
    assert again.get_vocab() == vocabulary.get_vocab()
    assert again.model_max_length == 32
    assert (again.pad_token_id, again.unk_token_id, again.mask_token_id) == (0, 1, 2)
    for text in [*ENGLISH, *CHINESE, *ODD]:
        assert again(text)["input_ids"] == vocabulary(text)["input_ids"]


@pytest.mark.parametrize(("kind", "language"), KINDS)
def test_equal_texts_make_equal_files(kind: str, language: str) -> None:
    files = [built(kind, language).backend_tokenizer.to_str() for _ in range(2)]
    assert files[0] == files[1]


def test_ids_are_dense_and_special_tokens_come_first(vocabulary: Any) -> None:
    found = vocabulary.get_vocab()
    assert sorted(found.values()) == list(range(len(vocabulary)))
    assert [found["[PAD]"], found["[UNK]"], found["[MASK]"]] == [0, 1, 2]


def test_what_says_nothing_has_no_tokens(vocabulary: Any) -> None:
    for text in ("", " ", "\n\t "):
        assert vocabulary(text)["input_ids"] == []


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_any_text_can_be_read(text: str) -> None:
    for kind, language in KINDS:
        tokenizer = VOCABULARIES[kind, language]
        assert all(0 <= i < len(tokenizer) for i in tokenizer(text)["input_ids"])


VOCABULARIES = {pair: built(*pair) for pair in KINDS}


def test_long_texts_are_cut_and_a_masked_word_is_one_token(vocabulary: Any) -> None:
    long = vocabulary(" ".join(["film 中国"] * 100), truncation=True, max_length=32)
    assert len(long["input_ids"]) == 32
    for text in ("film [MASK] film", "中国[MASK]手机"):
        assert vocabulary(text)["input_ids"].count(vocabulary.mask_token_id) == 1


def test_special_tokens_are_spelled_as_the_teachers() -> None:
    tokenizer = built("words", "en", mask_token="<mask>", unk_token="<unk>")
    assert tokens(tokenizer, "film <mask> <unk> zzz") == ["film", "<mask>", "<unk>", "<unk>"]
    bare = built("words", "en", mask_token=None)
    assert bare.mask_token is None
    assert "[MASK]" not in bare.get_vocab()


@pytest.mark.parametrize(("kind", "language"), KINDS)
def test_masked_words_of_the_training_texts_are_no_words(kind: Any, language: Any) -> None:
    texts = ENGLISH if language == "en" else CHINESE
    masked = [*texts, "[MASK] [MASK][UNK]", "[MASK]"]
    tokenizer = build(kind, masked, language=language, max_length=32)
    assert tokenizer.get_vocab() == built(kind, language).get_vocab()


# ---------------------------------------------------------------- words and characters


def test_english_words_are_lower_cased_and_cut_at_clitics() -> None:
    found = count("words", ENGLISH, language="en")
    assert {"do": 2, "n't": 2, "it": 2, "'s": 2, "film": 2, "café": 2, "3.5": 1}.items() <= found.items()
    assert tokens(built("words", "en"), "DON’T stop, NAÏVE Film ﬁlm") == [
        "do", "n't", "stop", ",", "naïve", "film", "film",
    ]  # fmt: skip


def test_a_word_needs_two_occurrences_or_a_vector() -> None:
    plain, helped = built("words", "en"), built("words", "en", known=["well", "unseen"])
    assert tokens(plain, "well film") == ["[UNK]", "film"]
    assert tokens(helped, "well film") == ["well", "film"]
    assert "unseen" not in helped.get_vocab()


def test_characters_are_all_that_is_no_space() -> None:
    tokenizer = built("characters", "zh")
    assert tokens(tokenizer, "手机 第一") == ["手", "机", "第", "一"]
    assert tokens(tokenizer, "手€") == ["手", "[UNK]"]
    assert tokenizer.decode(tokenizer("手机 第一")["input_ids"]) == "手机第一"


def test_chinese_words_are_cut_as_rjieba_cut_the_training_texts() -> None:
    import rjieba

    tokenizer = built("words", "zh")
    assert tokens(tokenizer, CHINESE[0]) == rjieba.cut(CHINESE[0])
    assert tokens(tokenizer, "iPhone的手机，") == ["iphone", "的", "手机", "[UNK]"]
    assert tokens(tokenizer, "省中") == ["省", "中"], "characters of no word of their own"


def test_the_likelier_cut_wins() -> None:
    texts = ["研究生命", "研究", "研究", "研究", "生命", "生命", "研究生"]
    counts = count("words", texts, language="zh")
    tokenizer = build("words", texts, language="zh", max_length=8, known=["研究生", "命"])
    assert counts["研究"] >= 3
    assert tokens(tokenizer, "研究生命") == ["研究", "生命"]


def test_a_stored_chinese_vocabulary_needs_no_rjieba(tmp_path: Path) -> None:
    tokenizer = built("words", "zh")
    tokenizer.save_pretrained(tmp_path)
    script = (
        "import sys; sys.modules['rjieba'] = None\n"
        "from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path)!r})\n"
        f"print(tokenizer({CHINESE[1]!r})['input_ids'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tokenizer(CHINESE[1])["input_ids"])


def test_chinese_words_need_rjieba_characters_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    assert len(built("characters", "zh")) > 3
    with pytest.raises(DataError, match="rjieba") as caught:
        built("words", "zh")
    assert 'pip install "kdsearch[zh]"' in caught.value.hint


@pytest.mark.parametrize(("kind", "language"), KINDS)
@pytest.mark.parametrize("texts", [[], [""], [" ", "\n"]])
def test_texts_without_anything_make_no_vocabulary(kind: Any, language: Any, texts: list[str]) -> None:
    with pytest.raises(DataError, match=f"hold no {kind}"):
        build(kind, texts, language=language, max_length=8)
