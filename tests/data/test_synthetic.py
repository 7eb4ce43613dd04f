"""The synthetic opinions: order decides, a bag of words does not; the noise and the copies are as said."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import DataError
from kdsearch.core.specdata import DataSpec
from kdsearch.data.dataset import load_dataset, normalised
from kdsearch.data.synthetic import CUES, LABELS, PRAISE, Recipe, spam_opinions


def words(text: str) -> list[str]:
    return re.findall(r"\{?\w+\}?", text.lower())


@pytest.mark.parametrize("spam, genuine", CUES)
def test_both_orders_of_a_cue_have_exactly_the_same_words(spam: str, genuine: str) -> None:
    assert sorted(words(spam)) == sorted(words(genuine))
    assert words(spam) != words(genuine)


def accuracy(ngrams: tuple[int, int], seed: int) -> float:
    texts, labels = spam_opinions(Recipe(rows=2000, seed=seed))
    new_texts, new_labels = spam_opinions(Recipe(rows=1000, seed=seed + 1000))
    counts = CountVectorizer(ngram_range=ngrams, token_pattern=r"\w+")
    model = LogisticRegression(max_iter=2000).fit(counts.fit_transform(texts), labels)
    return float(model.score(counts.transform(new_texts), new_labels))


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_bag_of_words_stays_far_below_what_sees_the_order(seed: int) -> None:
    bag, ordered = accuracy((1, 1), seed), accuracy((1, 3), seed)
    assert 0.65 < bag < 0.83, "praise alone helps a little"
    assert ordered > 0.92
    assert ordered - bag > 0.12


def test_noise_flips_that_share_of_labels_and_no_text() -> None:
    texts, clean = spam_opinions(Recipe(rows=4000, seed=5, noise=0.0))
    same_texts, noisy = spam_opinions(Recipe(rows=4000, seed=5, noise=0.1))
    assert texts == same_texts
    flipped = np.mean([a != b for a, b in zip(clean, noisy, strict=True)])
    assert 0.085 < flipped < 0.115


def test_without_noise_the_headline_gives_the_label_away() -> None:
    texts, labels = spam_opinions(Recipe(rows=500, seed=2, noise=0.0))
    for text, label in zip(texts, labels, strict=True):
        if text.startswith(("Buy it", "Wait")):
            assert (label == "spam") == text.startswith("Buy it")


def test_classes_are_even_texts_distinct_and_some_nearly_the_same() -> None:
    texts, labels = spam_opinions(Recipe(rows=600, seed=3))
    assert set(labels) == set(LABELS)
    assert 0.42 < labels.count("spam") / 600 < 0.58
    assert len(set(texts)) == 600
    near = sum(
        any(SequenceMatcher(None, words(text), words(other)).ratio() > 0.75 for other in texts[:i])
        for i, text in enumerate(texts[:300])
    )
    assert near >= 10


def test_the_same_recipe_gives_the_same_rows_on_every_machine() -> None:
    digest = "346028683d499207d4b9ebcd7570988b639b7d3e7f3671a21d8a694901f2cb1b"
    assert sha256_of(spam_opinions(Recipe(rows=200, seed=1))) == digest


def test_fewer_rows_are_the_first_of_more() -> None:
    texts, labels = spam_opinions(Recipe(rows=300, seed=4))
    fewer_texts, fewer_labels = spam_opinions(Recipe(rows=120, seed=4))
    assert (texts[:120], labels[:120]) == (fewer_texts, fewer_labels)


def test_pools_of_other_seeds_share_no_text() -> None:
    pools = [{normalised(t) for t in spam_opinions(Recipe(rows=2000, seed=s))[0]} for s in range(4)]
    assert len(set.union(*pools)) > 0.995 * sum(map(len, pools))
    assert sum(len(a & b) for i, a in enumerate(pools) for b in pools[:i]) <= 2


def test_praise_of_one_label_is_never_that_of_the_other() -> None:
    assert not set(PRAISE["spam"]) & set(PRAISE["genuine"])


def test_a_study_file_names_it_by_address(tmp_path: object) -> None:
    spec = DataSpec.model_validate(
        {
            "train": "synthetic://spam_opinions?rows=800&seed=1",
            "validation": {"path": "synthetic://spam_opinions?rows=800&seed=2", "limit": 600},
            "unlabelled": "synthetic://spam_opinions?rows=50&seed=3&noise=0.5",
        }
    )
    dataset = load_dataset(spec, base=tmp_path, teacher_labels=None)  # type: ignore[arg-type]
    assert dataset.labels == LABELS
    assert {name: len(pool) for name, pool in dataset.pools.items()} == {
        "train": 800,
        "validation": 600,
        "unlabelled": 50,
    }
    assert set(dataset.pools["unlabelled"].labels_N.tolist()) == {-1}
    assert dataset.warnings == ()


@pytest.mark.parametrize(
    ("address", "message", "hint"),
    [
        (
            "synthetic://spam_opinion?rows=5",
            "no synthetic data called 'spam_opinion'",
            "synthetic://spam_opinions",
        ),
        ("synthetic://spam_opinions?row=5", "unknown parameter 'row'", "did you mean 'rows'?"),
        ("synthetic://spam_opinions?colour=red", "unknown parameter 'colour'", "it takes rows, seed, noise"),
        ("synthetic://spam_opinions?rows=many", "rows is 'many'", "rows is a number (int) from 1"),
        ("synthetic://spam_opinions?rows=0", "rows is '0'", "from 1"),
        ("synthetic://spam_opinions?noise=0.9", "noise is '0.9'", "from 0.0 to 0.5"),
        ("synthetic://spam_opinions?noise=nan", "noise is 'nan'", "from 0.0 to 0.5"),
        ("synthetic://spam_opinions?seed=", "seed is ''", "seed is a number"),
    ],
)
def test_what_an_address_gets_wrong_is_said(address: str, message: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        Recipe.parse(address)
    assert message in caught.value.what
    assert hint in caught.value.hint


def test_left_out_parameters_have_defaults() -> None:
    assert Recipe.parse("synthetic://spam_opinions") == Recipe(rows=1000, seed=0, noise=0.02)
    assert Recipe.parse("synthetic://spam_opinions?seed=7&rows=20") == Recipe(rows=20, seed=7)
