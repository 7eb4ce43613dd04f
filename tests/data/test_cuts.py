"""Pools cut down: by label, by class, by count, nested and without reading on; labels flipped on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.core.errors import DataError
from kdsearch.core.specdata import DataSpec, SourceSpec
from kdsearch.data.dataset import Dataset, Pool, load_dataset, load_saved, save_dataset
from kdsearch.data.readers import read_rows
from kdsearch.data.rows import Cell, Cut, Rows, to_rows

Row = tuple[str, str | None]


def kept(rows: list[Row], **cuts: Any) -> list[Row]:
    cut = Cut(SourceSpec(path="x", **cuts))
    cells = (Cell(i, None, text, label) for i, (text, label) in enumerate(rows, 1))
    found = to_rows(cut.until_full(cells), "x", cut)
    return list(zip(found.texts, found.labels, strict=True))


def labelled(labels: list[str | None]) -> list[Row]:
    return [(f"text {i}", label) for i, label in enumerate(labels)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", None])),
    st.none() | st.just(("a", "b")),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 8),
)
def test_cutting_is_what_cutting_one_after_the_other_would_be(
    labels: list[str | None], keep: tuple[str, ...] | None, each: int | None, limit: int | None
) -> None:
    rows = labelled(labels)
    if keep is not None:
        rows = [row for row in rows if row[1] in keep]
    if each is not None:
        seen: list[str | None] = []
        chosen = []
        for row in rows:
            if row[1] is None or seen.count(row[1]) < each:
                chosen.append(row)
            seen.append(row[1])
        rows = chosen
    given_labels = None if keep is None else list(keep)
    cuts = {"keep_labels": given_labels, "per_class": each, "limit": limit}
    assert kept(labelled(labels), **cuts) == rows[:limit]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc")), st.integers(1, 5), st.integers(0, 5))
def test_a_smaller_pool_is_part_of_a_larger_one(labels: list[str], each: int, more: int) -> None:
    rows: list[Row] = labelled([*labels])
    large = kept(rows, per_class=each + more)
    assert [row for row in large if row in kept(rows, per_class=each)] == kept(rows, per_class=each)
    assert kept(rows, limit=each) == kept(rows, limit=each + more)[:each]


@pytest.mark.parametrize("cuts", [{"limit": 2}, {"keep_labels": ["a", "b"], "per_class": 1}])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_reading_ends_where_nothing_more_is_kept(tmp_path: Path, suffix: str, cuts: dict[str, Any]) -> None:
    path = tmp_path / f"x{suffix}"
    separator = {".csv": ",", ".tsv": "\t"}.get(suffix)
    if separator is None:
        path.write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\nbroken')
    else:
        lines = ("text", "label"), ("one", "a"), ("two", "b"), ("too", "many", "cells")
        path.write_text("".join(separator.join(line) + "\n" for line in lines))
    source = SourceSpec(path=path.name, **cuts)
    assert read_rows(source, base=tmp_path, text="text", label="label", split="train") == Rows(
        ["one", "two"], ["a", "b"]
    )
    with pytest.raises(DataError):
        read_rows(SourceSpec(path=path.name), base=tmp_path, text="text", label="label", split="train")


def test_a_cut_counts_over_the_files_of_a_glob(tmp_path: Path) -> None:
    for name in "xyz":
        write(tmp_path, name, [(f"{name} a", "a"), (f"{name} b", "b")])
    source = SourceSpec(path="*.jsonl", keep_labels=["a", "b"], per_class=2)  # type: ignore[arg-type]
    rows = read_rows(source, base=tmp_path, text="text", label="label", split="train")
    assert rows.texts == ["x a", "x b", "y a", "y b"]


def test_synthetic_rows_are_cut_too(tmp_path: Path) -> None:
    source = SourceSpec(path="synthetic://spam_opinions?rows=200", per_class=3)
    rows = read_rows(source, base=tmp_path, text="text", label="label", split="train")
    assert sorted(label or "" for label in rows.labels) == ["genuine"] * 3 + ["spam"] * 3


# ---------------------------------------------------------------- data sets


LETTERS: list[Row] = [(f"{label} says {i}", label) for i in range(20) for label in "abcd"]
HELD_OUT: list[Row] = [(f"{label} asks {i}", label) for i in range(5) for label in "abcd"]


def write(folder: Path, name: str, rows: list[Row]) -> None:
    lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


def load(folder: Path, *, seed: int = 17, mask_token: str | None = None, **spec: Any) -> Dataset:
    write(folder, "train", LETTERS)
    write(folder, "validation", HELD_OUT)
    sources = {name: {"path": f"{name}.jsonl", **spec.pop(name, {})} for name in ("train", "validation")}
    parsed = DataSpec.model_validate({**sources, **spec})
    return load_dataset(parsed, base=folder, teacher_labels=None, seed=seed, mask_token=mask_token)


def test_kept_labels_are_the_labels_of_the_study(tmp_path: Path) -> None:
    five = {"keep_labels": ["d", "b"]}
    dataset = load(tmp_path, train={**five, "per_class": 7}, validation=five)
    assert dataset.labels == ("b", "d")
    assert np.bincount(dataset.pools["train"].labels_N).tolist() == [7, 7]
    assert len(dataset.pools["validation"]) == 10


def test_a_label_that_a_limit_cuts_off_is_still_one_of_the_study(tmp_path: Path) -> None:
    keep = {"keep_labels": ["a", "b", "d"]}
    dataset = load(tmp_path, train={**keep, "limit": 2}, validation=keep)
    assert dataset.labels == ("a", "b", "d")
    assert "train: no row has the label 'd'" in dataset.warnings


def test_other_labels_in_validation_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation .*10 of 20 rows have an unknown label") as caught:
        load(tmp_path, train={"keep_labels": ["a", "b"]})
    assert "keep_labels" in caught.value.hint


def test_a_kept_label_that_no_row_has_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has the label 'e' of `keep_labels`") as caught:
        load(tmp_path, train={"keep_labels": ["a", "e"]})
    assert "its labels are 'a', 'b', 'c', 'd'" in caught.value.hint


def test_unlabelled_rows_are_chosen_by_labels_that_nobody_sees_afterwards(tmp_path: Path) -> None:
    write(tmp_path, "more", [(f"{text} more", label) for text, label in LETTERS])
    cut = {"path": "more.jsonl", "keep_labels": ["a", "b"], "per_class": 4}
    pool = load(tmp_path, unlabelled=cut).pools["unlabelled"]
    assert sorted(text[0] for text in pool.texts) == ["a"] * 4 + ["b"] * 4
    assert (pool.labels_N == -1).all()


def test_unlabelled_rows_cannot_be_chosen_by_labels_that_they_lack(tmp_path: Path) -> None:
    (tmp_path / "bare.jsonl").write_text('{"text": "some text"}')
    with pytest.raises(DataError, match="no column 'label'") as caught:
        load(tmp_path, unlabelled={"path": "bare.jsonl", "per_class": 4})
    assert "`per_class` choose rows" in caught.value.hint


# ---------------------------------------------------------------- label noise


def flipped(noisy: Dataset, clean: Dataset) -> np.ndarray[Any, Any]:
    return np.flatnonzero(noisy.pools["train"].labels_N != clean.pools["train"].labels_N)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.33, 0.99])
def test_exactly_the_share_of_labels_is_flipped(tmp_path: Path, share: float) -> None:
    noisy, clean = load(tmp_path, train={"label_noise": share}), load(tmp_path)
    assert len(flipped(noisy, clean)) == round(share * 80)
    assert noisy.pools["train"].texts == clean.pools["train"].texts
    assert noisy.fingerprint != clean.fingerprint
    assert any("wrong on purpose" in warning for warning in noisy.warnings)


def test_more_noise_keeps_the_noise_there_was(tmp_path: Path) -> None:
    clean, some, more = (load(tmp_path, train={"label_noise": share}) for share in (0.0, 0.2, 0.5))
    rows = flipped(some, clean)
    assert (some.pools["train"].labels_N[rows] == more.pools["train"].labels_N[rows]).all()


def test_noise_follows_the_seed(tmp_path: Path) -> None:
    noise, clean = {"label_noise": 0.3}, load(tmp_path)
    one, again, other = (load(tmp_path, train=noise, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint
    assert set(flipped(one, clean)) != set(flipped(other, clean))


def test_the_wrong_labels_are_drawn_evenly_from_the_others(tmp_path: Path) -> None:
    rows: list[Row] = [(f"text {i}", "abcd"[i % 4]) for i in range(4000)]
    write(tmp_path, "many", rows)
    source = {"path": "many.jsonl", "label_noise": 0.9}
    spec = DataSpec.model_validate({"train": source, "validation": "many.jsonl"})
    labels = load_dataset(spec, base=tmp_path, teacher_labels=None).pools["train"].labels_N
    for label in range(4):
        counts = np.bincount(labels[label::4], minlength=4)
        wrong = np.delete(counts, label)
        assert abs(wrong - 300).max() < 75, "about a third of 900 each"


def test_rows_without_a_label_get_none_by_noise(tmp_path: Path) -> None:
    write(tmp_path, "half", [(text, label if i % 2 else None) for i, (text, label) in enumerate(LETTERS)])
    source = {"path": "half.jsonl", "label_noise": 0.5}
    spec = DataSpec.model_validate(
        {"train": source, "validation": {"path": "half.jsonl", "keep_labels": ["b", "d"]}}
    )
    labels = load_dataset(spec, base=tmp_path, teacher_labels=None).pools["train"].labels_N
    assert (labels[::2] == -1).all()
    original = np.array([{"b": 0, "d": 1}[label or ""] for _, label in LETTERS[1::2]])
    assert (labels[1::2] != original).sum() == 20


# ---------------------------------------------------------------- the augmented pool


def test_augmented_texts_are_a_pool_without_labels(tmp_path: Path) -> None:
    class Blobs:
        def put(self, data: bytes | Path) -> str:
            name = f"{len(list(tmp_path.iterdir())):064}"
            (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.read_bytes())
            return name

        def open(self, sha256: str) -> Path:
            return tmp_path / sha256

        def exists(self, sha256: str) -> bool:
            return self.open(sha256).exists()

    dataset = load(tmp_path, augmented={"times": 2}, mask_token="[MASK]")
    pool = dataset.pools["augmented"]
    assert isinstance(pool, Pool)
    assert len(pool) == 160
    assert (pool.labels_N == -1).all()
    assert dataset.fingerprint != load(tmp_path).fingerprint
    blobs = Blobs()
    again = load_saved(blobs, save_dataset(dataset, blobs))
    assert list(again.pools) == list(dataset.pools)
    assert again.pools["augmented"].texts == pool.texts


def test_augmented_texts_that_are_held_out_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "own", [("bad film", "a"), ("good film", "b")])
    write(tmp_path, "held", [("film bad", "a"), ("film", "b")])
    spec = DataSpec.model_validate(
        {"train": "own.jsonl", "validation": "held.jsonl", "augmented": {"swap": 1, "mask": 0, "ngram": 0}}
    )
    dataset = load_dataset(spec, base=tmp_path, teacher_labels=None)
    assert any("1 text stands in validation and in augmented" in warning for warning in dataset.warnings)
    assert not any("in train and in augmented" in warning for warning in dataset.warnings)


def test_texts_that_nothing_changes_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "own", [("bad", "a"), ("good film", "b")])
    spec = DataSpec.model_validate(
        {"train": "own.jsonl", "validation": "own.jsonl", "augmented": {"mask": 0, "times": 4}}
    )
    dataset = load_dataset(spec, base=tmp_path, teacher_labels=None)
    assert "augmented: 4 of 8 texts are what they were made from" in dataset.warnings
