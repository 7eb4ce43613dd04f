"""Data sets: one label order, empty texts and doubles counted, a content fingerprint, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdsearch.core.canonical import sha256_hex
from kdsearch.core.errors import ArtifactError, DataError
from kdsearch.core.specdata import DataSpec
from kdsearch.data.dataset import Dataset, load_dataset, load_saved, normalised, save_dataset

Row = tuple[Any, Any]

TRAIN: list[Row] = [("buy now", "spam"), ("see you", "ham"), ("free", "spam"), ("on my way", "ham")]
VALIDATION: list[Row] = [("win a prize", "spam"), ("call me", "ham")]
SMALL = "rows tell an accuracy"


class FolderBlobs:
    """Content-addressed files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes | Path) -> str:
        content = data if isinstance(data, bytes) else data.read_bytes()
        (self.folder / sha256_hex(content)).write_bytes(content)
        return sha256_hex(content)

    def open(self, sha256: str) -> Path:
        return self.folder / sha256

    def exists(self, sha256: str) -> bool:
        return self.open(sha256).exists()


def write(folder: Path, name: str, rows: list[Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


def load(
    folder: Path,
    *,
    teacher: tuple[str, ...] | None = None,
    labels: list[str] | None = None,
    **pools: list[Row],
) -> Dataset:
    """A data set of these pools, with `TRAIN` and `VALIDATION` where they are left out."""
    given = {"train": TRAIN, "validation": VALIDATION, **pools}
    for name, rows in given.items():
        write(folder, name, rows)
    spec = DataSpec.model_validate({"labels": labels, **{name: f"{name}.jsonl" for name in given}})
    return load_dataset(spec, base=folder, teacher_labels=teacher)


def warnings(dataset: Dataset) -> list[str]:
    """Without the one that every small validation pool gets."""
    return [warning for warning in dataset.warnings if SMALL not in warning]


# ---------------------------------------------------------------- labels


def test_labels_are_sorted_unless_somebody_orders_them(tmp_path: Path) -> None:
    plain = load(tmp_path)
    named = load(tmp_path, labels=["spam", "ham"])
    taught = load(tmp_path, labels=["ham", "spam"], teacher=("spam", "ham"))
    assert (plain.labels, named.labels, taught.labels) == (("ham", "spam"), ("spam", "ham"), ("spam", "ham"))
    assert plain.pools["train"].labels_N.tolist() == [1, 0, 1, 0]
    assert taught.pools["train"].labels_N.tolist() == [0, 1, 0, 1]
    assert plain.pools["train"].labels_N.dtype == np.int64


def test_numbers_are_sorted_by_value(tmp_path: Path) -> None:
    rows = [(f"text {i}", label) for i, label in enumerate([10, 2, 1, "other"])]
    assert load(tmp_path, train=rows, validation=rows[:2]).labels == ("1", "2", "10", "other")


def test_unknown_labels_are_counted_with_their_first_row(tmp_path: Path) -> None:
    validation = [*VALIDATION, ("a", "Span"), ("b", "Span"), ("c", "news")]
    with pytest.raises(DataError) as caught:
        load(tmp_path, validation=validation)
    assert caught.value.what == (
        "validation (validation.jsonl): 3 of 5 rows have an unknown label: 'Span' (2 rows, first row 3), "
        "'news' (1 row, first row 5); known are 'ham', 'spam'"
    )
    assert caught.value.hint == "did you mean 'spam'?"
    assert caught.value.exit_code == 2


def test_labels_that_the_teacher_lacks_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train .*'ham' \(2 rows, first row 2\); known are 'junk', 'spam'"
    ) as caught:
        load(tmp_path, teacher=("junk", "spam"))
    assert "label_map" in caught.value.hint


def test_a_teacher_with_other_labels_than_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the teacher's labels are 'NEG', 'POS'") as caught:
        load(tmp_path, teacher=("NEG", "POS"), labels=["ham", "spam"])
    assert "label_map" in caught.value.hint


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([("a", "ham"), ("b", "ham")], "the one label 'ham'"),
        ([("a", None), ("b", "")], "no label in any row"),
    ],
)
def test_training_needs_two_labels(tmp_path: Path, train: list[Row], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, train=train)


def test_training_rows_that_all_lack_a_label_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train .*2 of 2 rows have no label \(first row 1\)"):
        load(tmp_path, train=[("a", None), ("b", None)], labels=["ham", "spam"])


def test_training_on_one_of_the_given_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train has rows of fewer than two labels; without 'ham'"):
        load(tmp_path, train=[("a", "spam")], labels=["ham", "spam"])


def test_validation_needs_two_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validation has rows of fewer than two labels; without 'spam'"):
        load(tmp_path, validation=[("a", "ham"), ("b", "ham")])


def test_a_label_without_rows_is_warned_of(tmp_path: Path) -> None:
    dataset = load(tmp_path, labels=["ham", "spam", "news"], test=[("x", "ham"), ("y", "ham")])
    assert warnings(dataset) == [
        "train: no row has the label 'news'",
        "validation: no row has the label 'news'",
        "test: no row has the label 'spam', 'news'",
    ]


def test_training_rows_without_a_label_stay_and_are_counted(tmp_path: Path) -> None:
    dataset = load(tmp_path, train=[*TRAIN, ("who knows", None), ("nor I", float("nan"))])
    assert dataset.pools["train"].labels_N.tolist() == [1, 0, 1, 0, -1, -1]
    assert warnings(dataset) == [
        "train: 2 of 6 rows have no label (first row 5); they teach by soft targets alone"
    ]


@pytest.mark.parametrize("pool", ["validation", "test"])
def test_scored_rows_need_their_label(tmp_path: Path, pool: str) -> None:
    with pytest.raises(DataError, match=rf"{pool} .*1 of 3 rows have no label \(first row 3\)"):
        load(tmp_path, **{pool: [*VALIDATION, ("who knows", "")]})


def test_labels_of_the_unlabelled_pool_are_not_read(tmp_path: Path) -> None:
    dataset = load(tmp_path, unlabelled=[("a", "nonsense"), ("b", None), ("c", ["list"])])
    assert dataset.pools["unlabelled"].labels_N.tolist() == [-1, -1, -1]
    assert warnings(dataset) == []


# ---------------------------------------------------------------- empty texts, doubles, few rows


def test_empty_texts_leave_training_and_stay_where_students_are_scored(tmp_path: Path) -> None:
    empty: list[Row] = [(" \n", "ham"), ("", "spam"), (None, "ham")]
    dataset = load(
        tmp_path,
        train=[empty[0], *TRAIN, *empty[1:]],
        validation=[*VALIDATION, *empty],
        unlabelled=[("x", None), ("", None)],
    )
    assert dataset.pools["train"].texts == tuple(text for text, _ in TRAIN)
    assert dataset.pools["train"].labels_N.tolist() == [1, 0, 1, 0]
    assert dataset.pools["validation"].texts == ("win a prize", "call me", " \n", "", "")
    assert dataset.pools["unlabelled"].texts == ("x",)
    assert warnings(dataset) == [
        "train: 3 of 7 texts are empty; they are left out",
        "validation: 3 of 5 texts are empty; they are kept, a student in use meets them too",
        "unlabelled: 1 of 2 texts are empty; they are left out",
    ]


def test_a_pool_of_empty_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every text is empty"):
        load(tmp_path, train=[("", "ham"), (" ", "spam")])


def test_the_same_text_in_two_pools_is_warned_of_however_it_is_written(tmp_path: Path) -> None:
    dataset = load(
        tmp_path,
        validation=[*VALIDATION, ("ＢＵＹ   Now ", "spam"), ("Free\n", "ham")],
        test=[("call me", "ham"), ("other", "spam")],
        unlabelled=[("see you", None), ("CALL ME", None)],
    )
    assert warnings(dataset) == [
        "2 texts stand in train and in validation, e.g. 'buy now'; scores may be too good",
        "1 text stands in validation and in test, e.g. 'call me'; scores may be too good",
        "1 text stands in validation and in unlabelled, e.g. 'call me'; scores may be too good",
        "1 text stands in test and in unlabelled, e.g. 'call me'; scores may be too good",
    ]


def test_doubles_within_a_pool_are_the_datas_own_affair(tmp_path: Path) -> None:
    dataset = load(tmp_path, train=[*TRAIN, *TRAIN])
    assert len(dataset.pools["train"]) == 8
    assert warnings(dataset) == []


def test_normalised_texts_ignore_case_width_and_spaces_only() -> None:
    assert normalised(" Ｂuy\u00a0 NOW\n") == normalised("buy now")
    assert normalised("Straße") == normalised("STRASSE")
    assert normalised("buy now!") != normalised("buy now")


def test_few_validation_rows_are_warned_of_with_what_they_can_tell(tmp_path: Path) -> None:
    rows: list[Row] = [(f"text {i}", "ham" if i % 2 else "spam") for i in range(500)]
    assert load(tmp_path, validation=rows).warnings == ()
    assert load(tmp_path, validation=rows[:100]).warnings == (
        "validation: 100 rows tell an accuracy of 90 % to within 5.9 points only",
    )


def test_limits_cut_a_pool(tmp_path: Path) -> None:
    load(tmp_path)
    spec = DataSpec.model_validate(
        {"train": {"path": "train.jsonl", "limit": 2}, "validation": "validation.jsonl"}
    )
    assert load_dataset(spec, base=tmp_path, teacher_labels=None).pools["train"].texts == (
        "buy now",
        "see you",
    )


def test_columns_have_the_names_of_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("stars,review\n1,bad\n5,good\n")
    spec = DataSpec.model_validate(
        {"train": "a.csv", "validation": "a.csv", "text": "review", "label": "stars"}
    )
    dataset = load_dataset(spec, base=tmp_path, teacher_labels=None)
    assert (dataset.labels, dataset.pools["train"].texts) == (("1", "5"), ("bad", "good"))


# ---------------------------------------------------------------- fingerprint, storage


def test_the_fingerprint_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    first, moved = load(tmp_path / "a"), load(tmp_path / "b")
    (tmp_path / "c").mkdir()
    for name, rows in {"train": TRAIN, "validation": VALIDATION}.items():
        content = "label,text\n" + "".join(f"{label},{text}\n" for text, label in rows)
        (tmp_path / "c" / f"{name}.csv").write_text(content)
    spec = DataSpec.model_validate({"train": "train.csv", "validation": "validation.csv"})
    as_csv = load_dataset(spec, base=tmp_path / "c", teacher_labels=None)
    assert first.fingerprint == moved.fingerprint == as_csv.fingerprint


def test_whatever_is_learned_from_changes_the_fingerprint(tmp_path: Path) -> None:
    changed = [
        load(tmp_path),
        load(tmp_path, train=TRAIN[::-1]),
        load(tmp_path, train=[("buy now", "ham"), *TRAIN[1:]]),
        load(tmp_path, train=[("buy now!", "spam"), *TRAIN[1:]]),
        load(tmp_path, labels=["spam", "ham"]),
        load(tmp_path, test=[("x", "ham"), ("y", "spam")]),
        load(tmp_path, unlabelled=[("x", None)]),
    ]
    assert len({dataset.fingerprint for dataset in changed}) == len(changed)


def test_a_saved_dataset_comes_back_whole(tmp_path: Path) -> None:
    dataset = load(
        tmp_path / "data",
        train=[*TRAIN, ("中文 😀\nsecond line", None)],
        test=[("", "ham"), ("call me", "spam")],
        unlabelled=[("x", None)],
    )
    blobs = FolderBlobs(tmp_path)
    sha256 = save_dataset(dataset, blobs)
    assert save_dataset(dataset, blobs) == sha256
    loaded = load_saved(blobs, sha256)
    assert (loaded.labels, loaded.warnings, loaded.fingerprint) == (
        dataset.labels,
        dataset.warnings,
        dataset.fingerprint,
    )
    assert list(loaded.pools) == list(dataset.pools) == ["train", "validation", "test", "unlabelled"]
    for name, pool in dataset.pools.items():
        assert (loaded.pools[name].name, loaded.pools[name].texts) == (pool.name, pool.texts)
        assert loaded.pools[name].labels_N.dtype == np.int64
        assert loaded.pools[name].labels_N.tolist() == pool.labels_N.tolist()


def test_another_artifact_is_no_dataset(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    with pytest.raises(ArtifactError, match=r"is not a kdsearch\.dataset/v1 but 'other/v1'"):
        load_saved(blobs, blobs.put(b'{"format": "other/v1"}'))
