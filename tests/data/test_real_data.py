"""The real data sets are read whole: sizes, labels and shares as their descriptions state them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdsearch.core.specdata import AugmentSpec, DataSpec
from kdsearch.data.augment import augment, unchanged
from kdsearch.data.dataset import Dataset, load_dataset
from kdsearch.data.tokens import id_table, tokenise
from kdsearch.data.vectors import read_vectors, table, token_counts
from kdsearch.data.vocabularies import build


def load(folder: Path, **limits: int) -> Dataset:
    sources = {}
    for name in ("train", "validation", "test", "unlabelled"):
        for path in folder.glob(f"{name}.jsonl*"):
            sources[name] = {"path": path.name, **({"limit": limits[name]} if name in limits else {})}
    return load_dataset(DataSpec.model_validate(sources), base=folder, teacher_labels=None)


@pytest.mark.parametrize(
    ("name", "num_labels", "sizes"),
    [
        ("sms_spam", 2, {"train": 3659, "validation": 500, "test": 1000}),
        ("sst2", 2, {"train": 66972, "validation": 872, "test": 1821}),
        ("tnews", 15, {"train": 43244, "validation": 5001, "test": 9761, "unlabelled": 38555}),
    ],
)
def test_every_row_is_read(data_dir: Path, name: str, num_labels: int, sizes: dict[str, int]) -> None:
    dataset = load(data_dir / name)
    assert {pool.name: len(pool) for pool in dataset.pools.values()} == sizes
    assert len(dataset.labels) == num_labels
    assert dataset.labels == tuple(sorted(dataset.labels))
    assert dataset.warnings == (), "their splits are disjoint and every class occurs"


def test_the_share_of_spam_is_as_published(data_dir: Path) -> None:
    dataset = load(data_dir / "sms_spam")
    assert dataset.labels == ("ham", "spam")
    counts = [pool.labels_N.sum() for pool in dataset.pools.values()]
    assert sum(counts) / 5159 == pytest.approx(0.124, abs=0.002)


def test_a_limit_keeps_the_first_rows(data_dir: Path) -> None:
    whole, cut = load(data_dir / "sms_spam"), load(data_dir / "sms_spam", train=100)
    assert cut.pools["train"].texts == whole.pools["train"].texts[:100]
    assert cut.fingerprint != whole.fingerprint


FIVE = ["news_car", "news_culture", "news_finance", "news_sports", "news_tech"]


def test_five_classes_are_cut_evenly(data_dir: Path) -> None:
    keep = {"keep_labels": FIVE, "per_class": 500}
    validation = {"path": "validation.jsonl", "keep_labels": FIVE}
    spec = DataSpec.model_validate({"train": {"path": "train.jsonl", **keep}, "validation": validation})
    dataset = load_dataset(spec, base=data_dir / "tnews", teacher_labels=None)
    assert dataset.labels == tuple(FIVE)
    assert np.bincount(dataset.pools["train"].labels_N).tolist() == [500] * 5
    assert set(dataset.pools["validation"].labels_N.tolist()) == set(range(5))


@pytest.mark.parametrize(
    ("name", "kind", "language", "file", "covered"),
    [
        ("tnews", "characters", "zh", "tencent_char_200d.vec.gz", 0.97),
        ("sst2", "words", "en", "glove6B_50d_small.vec.gz", 0.80),
        ("yelp_sentences", "words", "en", "glove6B_50d_small.vec.gz", 0.875),
    ],
)
def test_vectors_cover_the_share_of_the_texts_that_they_are_said_to(
    data_dir: Path, name: str, kind: Any, language: Any, file: str, covered: float
) -> None:
    pool = load(data_dir / name, train=15_000).pools["train"]
    vectors = read_vectors(data_dir / "vectors" / file)
    tokenizer = build(kind, pool.texts, language=language, max_length=64, known=vectors.words)
    tokens = tokenise(pool, tokenizer, 64)
    ids = id_table([tokens], len(tokenizer), tokenizer.all_special_ids, pad_id=tokenizer.pad_token_id)
    counts = token_counts([tokens], len(tokenizer))
    rows, missing = table(tokenizer, ids, int(ids.max()) + 1, vectors, counts=counts, seed=1)
    assert np.isfinite(rows).all()
    assert 1 - missing == pytest.approx(covered, abs=0.012)


def test_the_unigram_model_cuts_as_rjieba_does(data_dir: Path) -> None:
    import rjieba

    texts = load(data_dir / "tnews", train=20_000).pools["train"].texts
    tokenizer = build("words", texts, language="zh", max_length=64)
    same = total = 0
    for text in texts[:1000]:
        theirs = _spans(word for word in rjieba.cut(text.lower()) if not word.isspace())
        ours = _spans(tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))
        same, total = same + len(theirs & ours), total + len(theirs)
    assert same / total > 0.88


def _spans(words: Any) -> set[tuple[int, int]]:
    found, start = set(), 0
    for word in words:
        found.add((start, start + len(word)))
        start += len(word)
    return found


@pytest.mark.parametrize(("name", "language"), [("sst2", "en"), ("tnews", "zh")])
def test_every_real_text_is_augmented(data_dir: Path, name: str, language: Any) -> None:
    texts = load(data_dir / name, train=20_000).pools["train"].texts
    rows = augment(texts, AugmentSpec(), language=language, mask_token="[MASK]")
    assert len(rows) == 60_000
    assert unchanged(rows, texts, 3) == 0
    assert 0.3 < sum("[MASK]" in row for row in rows) / len(rows) < 0.9
