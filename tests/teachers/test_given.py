"""Logits brought along: both forms, the study's label order, and every way in which they can be wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from kdsearch.core.errors import DataError
from kdsearch.data.tokens import TokenPool, text_keys
from kdsearch.teachers import given
from kdsearch.teachers.signals import lookup

LABELS = ("ham", "spam", "odd")
TEXTS = ("win a prize", "lunch?", "", "émoji 🎉 中文", "lunch?")
LOGITS_NC = np.asarray([[0.5, 2, -1], [3, -2, 0], [0, 0, 0.25], [1, 2, 3], [3, -2, 0]], np.float32)


def write_npz(path: Path, **changed: Any) -> Path:
    arrays = {"texts": np.asarray(TEXTS), "logits": LOGITS_NC, "labels": np.asarray(LABELS)} | changed
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **{k: v for k, v in arrays.items() if v is not None})
    return path


def write_parquet(path: Path, **changed: Any) -> Path:
    columns = {"text": list(TEXTS)} | {label: LOGITS_NC[:, c] for c, label in enumerate(LABELS)} | changed
    parquet.write_table(pyarrow.table({k: v for k, v in columns.items() if v is not None}), path)
    return path


def pool_of(*texts: str, name: str = "train") -> TokenPool:
    n = len(texts)
    return TokenPool(
        name, np.zeros(0, np.int32), np.zeros(n + 1, np.int64), np.zeros(n, np.int64), text_keys(texts)
    )


def digests() -> list[str]:
    return [hashlib.sha256(text.encode()).hexdigest() for text in TEXTS]


@pytest.mark.parametrize("form", ["npz texts", "npz keys", "parquet text", "parquet sha256"])
def test_every_form_gives_a_text_its_logits(tmp_path: Path, form: str) -> None:
    path = {
        "npz texts": lambda p: write_npz(p),
        "npz keys": lambda p: write_npz(p, texts=None, keys=text_keys(TEXTS)),
        "parquet text": lambda p: write_parquet(p),
        "parquet sha256": lambda p: write_parquet(p, text=None, sha256=digests()),
    }[form](tmp_path / "a blob without an extension")
    shard = given.read_logits(path, LABELS)
    found, missing = lookup([shard], pool_of(*reversed(TEXTS)))
    assert not len(missing) and np.array_equal(found, LOGITS_NC[::-1])
    assert len(shard.keys) == 4, "an equal text with equal logits is one text"


def test_logits_come_in_the_order_of_the_study_under_its_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logits", text=None, sha256=digests())
    found = given.read_logits(path, ("odd", "Müll", "ham"), {"spam": "Müll"})
    assert np.array_equal(lookup([found], pool_of(*TEXTS))[0], LOGITS_NC[:, [2, 1, 0]])


def test_missing_texts_are_named_and_counted(tmp_path: Path) -> None:
    shard = given.read_logits(write_npz(tmp_path / "logits"), LABELS)
    train, validation = pool_of("lunch?", "new", "newer", "new"), pool_of("old", "lunch?", name="validation")
    assert given.missing(shard, train).tolist() == [1, 2]
    given.check_complete(shard, [pool_of(*TEXTS)], where="logits.npz")
    with pytest.raises(DataError) as error:
        given.check_complete(shard, [train, pool_of("", name="test"), validation], where="logits.npz")
    assert error.value.what == (
        "logits.npz has no logits of 2 of 3 texts of train (first row 2),"
        " 1 of 2 texts of validation (first row 1)"
    )


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "not a number": ({"logits": np.where(LOGITS_NC == 3, np.nan, LOGITS_NC)}, "3 of 5 rows .*first row 2"),
    "infinite": ({"logits": np.where(LOGITS_NC == 0.25, -np.inf, LOGITS_NC)}, "1 of 5 rows .*first row 3"),
    "too large": ({"logits": LOGITS_NC.astype(np.float64) * 1e300}, "5 of 5 rows"),
    "one row short": ({"logits": LOGITS_NC[:4]}, r"\(4, 3\).* for 5 texts"),
    "one column short": ({"logits": LOGITS_NC[:, :2]}, r"\(5, 2\).* 3 labels"),
    "words": ({"logits": np.full((5, 3), "x")}, "type <U1"),
    "pickled": ({"logits": LOGITS_NC.astype(object)}, "cannot be read"),
    "another label": ({"labels": np.asarray(["ham", "spam", "even"])}, "has the labels"),
    "a label too many": ({"labels": np.asarray([*LABELS, "more"])}, "has the labels"),
    "no labels": ({"labels": None}, r"holds \['logits', 'texts'\]"),
    "no texts": ({"texts": None}, r"holds \['labels', 'logits'\]"),
    "short keys": ({"texts": None, "keys": np.zeros((5, 16), np.uint8)}, r"keys \(5, 16\) uint8"),
    "two answers": (
        {"logits": np.arange(15, dtype=np.float32).reshape(5, 3)},
        "1 rows repeat .*first row 5",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_wrong_npz_is_an_error_that_says_how(tmp_path: Path, case: str) -> None:
    changed, match = BROKEN[case]
    with pytest.raises(DataError, match=match):
        given.read_logits(write_npz(tmp_path / "logits.npz", **changed), LABELS)


def test_texts_that_are_objects_are_told_how_to_become_texts(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "logits.npz", texts=np.asarray(TEXTS, dtype=object))
    with pytest.raises(DataError) as error:
        given.read_logits(path, LABELS)
    assert "np.array(texts, dtype=str)" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"spam": [1.0, None, 0.0, 0.0, 1.0]}, "1 of 5 rows .*first row 2"),
        ({"spam": ["a"] * 5}, "column 'spam' is not of numbers"),
        ({"spam": None}, "has the labels"),
        ({"number": [1] * 5}, "has the labels"),
        ({"text": None}, "has the columns"),
        ({"text": [None, *TEXTS[1:]]}, "1 of 5 rows have no text"),
        ({"text": None, "sha256": ["abc"] * 5}, "no SHA-256"),
        ({"text": None, "sha256": ["ab"] * 5}, "no SHA-256"),
    ],
)
def test_a_wrong_parquet_file_is_an_error_that_says_how(tmp_path: Path, changed: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        given.read_logits(write_parquet(tmp_path / "logits.parquet", **changed), LABELS)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "logits.csv").write_text("text,ham\n")
    (tmp_path / "cut.npz").write_bytes(write_npz(tmp_path / "whole.npz").read_bytes()[:200])
    (tmp_path / "cut.parquet").write_bytes(write_parquet(tmp_path / "whole.parquet").read_bytes()[:200])
    for name in ("logits.csv", "cut.npz", "cut.parquet", "nowhere.npz"):
        with pytest.raises(DataError) as error:
            given.read_logits(tmp_path / name, LABELS)
        assert error.value.hint
    with pytest.raises(DataError, match="nowhere"):
        given.fingerprint(tmp_path / "nowhere")


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path.joinpath("executed").touch, ())

    with pytest.raises(DataError):
        given.read_logits(write_npz(tmp_path / "evil.npz", logits=np.array([Evil()], object)), LABELS)
    assert not (tmp_path / "executed").exists()


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first, second = write_npz(tmp_path / "a"), write_npz(tmp_path / "b", logits=-LOGITS_NC)
    copy = tmp_path / "c"
    copy.write_bytes(first.read_bytes())
    assert given.fingerprint(first) == given.fingerprint(copy) != given.fingerprint(second)
