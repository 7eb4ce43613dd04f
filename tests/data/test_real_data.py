"""The real data sets are read whole: sizes, labels and shares as their descriptions state them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.core.specdata import DataSpec
from kdsearch.data.dataset import Dataset, load_dataset


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
