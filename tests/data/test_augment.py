"""Augmented texts: every one differs from its source, words are kept, equal seeds give equal texts."""

from __future__ import annotations

import random
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.core.errors import DataError
from kdsearch.core.specdata import AugmentSpec
from kdsearch.data.augment import augment, stand_in, unchanged, vary
from kdsearch.data.segment import joined, words_of

MASK = "[MASK]"
ENGLISH = (
    "a film of rare and quiet beauty",
    "no",
    "so so",
    "dull dull dull",
    "you 😀 must see it !",
    "ab cd",
)
CHINESE = ("中国第一经济大省", "手机疏油层能保留多久", "好", "哈哈哈", "买了 Mate 9 手机，3.5% 😀", "iPhone")
WORDS = st.lists(st.text("abcé中😀", min_size=1, max_size=3), min_size=1, max_size=9)
SPECS = st.builds(
    AugmentSpec,
    times=st.integers(1, 4),
    mask=st.floats(0, 1),
    swap=st.floats(0, 1),
    ngram=st.floats(0, 1),
    max_ngram=st.integers(1, 6),
    seed=st.integers(0, 99),
)


def only(**probabilities: float) -> AugmentSpec:
    return AugmentSpec.model_validate({"mask": 0, "swap": 0, "ngram": 0, **probabilities})


# ---------------------------------------------------------------- every example is augmented


@pytest.mark.parametrize(("language", "texts"), [("en", ENGLISH), ("zh", CHINESE)])
@pytest.mark.parametrize("spec", [AugmentSpec(), AugmentSpec(times=20), only(mask=0.001), only(mask=1)])
def test_every_row_differs_from_the_text_it_was_made_from(
    language: Any, texts: tuple[str, ...], spec: AugmentSpec
) -> None:
    rows = augment(texts, spec, language=language, mask_token=MASK)
    assert len(rows) == spec.times * len(texts)
    for k, text in enumerate(texts):
        for row in rows[k * spec.times : (k + 1) * spec.times]:
            assert row != text
    assert unchanged(rows, texts, spec.times) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=4), SPECS)
def test_with_masking_nothing_stays_as_it_was(texts: list[list[str]], spec: AugmentSpec) -> None:
    joined_texts = [" ".join(words) for words in texts]
    if not spec.mask:
        return
    rows = augment(joined_texts, spec, language="en", mask_token=MASK)
    for i, row in enumerate(rows):
        assert row != joined_texts[i // spec.times]
        assert row


def test_a_text_of_one_word_stays_where_it_must_not_be_masked() -> None:
    rows = augment(["fine", "", "so so"], only(swap=1), language="en", mask_token=None)
    assert rows == ("fine",) * 3 + ("",) * 3 + ("so so",) * 3
    assert unchanged(rows, ["fine", "", "so so"], 3) == 9


def test_rows_are_not_masked_as_a_whole_where_words_can_remain() -> None:
    rows = augment(ENGLISH, only(mask=0.9), language="en", mask_token=MASK)
    several = [row for i, row in enumerate(rows) if len(ENGLISH[i // 3].split()) > 1]
    assert all(set(row.split()) != {MASK} for row in several)


def test_the_rows_of_a_text_differ_where_they_can() -> None:
    texts = ["one two three four five six seven eight nine ten"] * 20
    rows = augment(texts, AugmentSpec(times=3), language="en", mask_token=MASK)
    assert all(len(set(rows[i : i + 3])) == 3 for i in range(0, 60, 3))


# ---------------------------------------------------------------- what a variant is made of


@settings(max_examples=60, deadline=None)
@given(WORDS, SPECS)
def test_masking_and_swapping_keep_the_words(words: list[str], spec: AugmentSpec) -> None:
    whole = spec.model_copy(update={"ngram": 0.0})
    variant = vary(random.Random(1), words, whole, MASK)
    assert len(variant) == len(words)
    left = Counter(variant)
    left.pop(MASK, None)
    assert left <= Counter(words)
    if not spec.mask:
        assert Counter(variant) == Counter(words)


@settings(max_examples=60, deadline=None)
@given(WORDS, st.integers(1, 6), st.integers(0, 999))
def test_an_ngram_is_a_run_of_the_text(words: list[str], longest: int, seed: int) -> None:
    variant = vary(random.Random(seed), words, only(ngram=1, max_ngram=longest), MASK)
    runs = [words[i : i + len(variant)] for i in range(len(words))]
    assert 1 <= len(variant) <= longest
    assert variant in runs


@settings(max_examples=60, deadline=None)
@given(WORDS, st.integers(0, 999))
def test_a_swapped_word_moves_by_one(words: list[str], seed: int) -> None:
    numbered = [f"{i}" for i in range(len(words))]
    variant = vary(random.Random(seed), numbered, only(swap=0.5), MASK)
    assert all(abs(int(word) - i) <= 1 for i, word in enumerate(variant))


def test_probabilities_are_those_asked_for() -> None:
    chance, words = random.Random(0), [str(i) for i in range(10)]
    draws = [vary(chance, words, only(mask=0.3), MASK) for _ in range(2000)]
    assert sum(draw.count(MASK) for draw in draws) / 20_000 == pytest.approx(0.3, abs=0.02)
    cut = [len(vary(chance, words, only(ngram=0.25), MASK)) for _ in range(4000)]
    assert sum(length < 10 for length in cut) / 4000 == pytest.approx(0.25, abs=0.03)
    for n in range(1, 6):
        assert cut.count(n) / 4000 == pytest.approx(0.05, abs=0.02)


# ---------------------------------------------------------------- seeds, languages, tokens


def test_equal_seeds_give_equal_texts_and_more_texts_change_none_before() -> None:
    spec = AugmentSpec(seed=3)
    rows = augment(ENGLISH, spec, language="en", mask_token=MASK)
    assert rows == augment(ENGLISH, spec, language="en", mask_token=MASK)
    assert rows[:6] == augment(ENGLISH[:2], spec, language="en", mask_token=MASK)
    assert rows != augment(ENGLISH, AugmentSpec(seed=4), language="en", mask_token=MASK)


def test_chinese_words_are_joined_without_spaces() -> None:
    words = words_of("zh")("买了 Mate 9 手机")
    assert words == ["买", "了", "Mate", "9", "手机"]
    assert joined(words, "zh") == "买了Mate 9手机"
    assert joined(["中国", MASK, "大省"], "zh") == "中国[MASK]大省"
    assert joined([], "zh") == ""


def test_a_chinese_word_is_never_torn() -> None:
    words = set(words_of("zh")(CHINESE[0]))
    rows = augment([CHINESE[0]] * 50, only(swap=0.5), language="zh", mask_token=None)
    assert len(words) > 2
    for row in rows:
        assert all(word in row for word in words)


def test_chinese_needs_rjieba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(DataError, match="rjieba") as caught:
        augment(CHINESE, AugmentSpec(), language="zh", mask_token=MASK)
    assert 'pip install "kdsearch[zh]"' in caught.value.hint
    assert caught.value.exit_code == 2


def test_the_token_for_a_masked_word_is_the_teachers() -> None:
    both: Any = SimpleNamespace(mask_token="<mask>", unk_token="<unk>")
    bare: Any = SimpleNamespace(mask_token=None, unk_token="<unk>")
    assert stand_in(both, AugmentSpec()) == "<mask>"
    assert stand_in(bare, AugmentSpec(token="unknown")) == "<unk>"
    assert stand_in(bare, only(swap=1)) is None
    with pytest.raises(DataError) as caught:
        stand_in(bare, AugmentSpec())
    assert "`token: unknown`" in caught.value.hint


def test_masking_by_no_token_is_refused() -> None:
    with pytest.raises(DataError, match="stands for a masked word"):
        augment(ENGLISH, AugmentSpec(), language="en", mask_token=None)
