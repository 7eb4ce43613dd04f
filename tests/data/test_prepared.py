"""Prepared survives its trip through the artifact store, and refuses a format it does not know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kdsearch.core.canonical import sha256_hex
from kdsearch.core.errors import ArtifactError
from kdsearch.core.records import HardwareProfile, Scores
from kdsearch.data.prepared import (
    HistoricalTeacher,
    Prepared,
    PreparedPool,
    RecordedTrajectory,
    Vocabulary,
)


class FolderBlobs:
    """Blobs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes | Path) -> str:
        content = data.read_bytes() if isinstance(data, Path) else data
        name = sha256_hex(content)
        (self.folder / name).write_bytes(content)
        return name

    def open(self, sha256: str) -> Path:
        return self.folder / sha256

    def exists(self, sha256: str) -> bool:
        return (self.folder / sha256).exists()


PREPARED = Prepared(
    labels=("genuine", "垃圾"),
    tokenizer="a" * 64,
    teacher=None,
    teacher_fingerprint="b" * 64,
    max_length=64,
    pad_id=0,
    vocab_size=300,
    num_tokens=200,
    id_table="c" * 64,
    pools={
        "train": PreparedPool(tokens="d" * 64, logits="e" * 64, num_rows=10),
        "test": PreparedPool(tokens="f" * 64, logits=None, num_rows=3),
    },
    profile=HardwareProfile(
        device_model="x", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
    ),
    anchors=("1" * 64, "2" * 64),
)


SCORES = Scores(
    quality=0.9, accuracy=0.9, macro_f1=0.8, nll=0.3, recall={"genuine": 0.7, "垃圾": 1.0}, coverage=0.5
)
FULL = replace(
    PREPARED,
    best={"loss": "3" * 64, "accuracy": "4" * 64},
    teacher_start="5" * 64,
    teacher_seconds=12.5,
    signals={"hidden:2": {"train": "6" * 64}, "historical": {"validation": "7" * 64}},
    historical=(HistoricalTeacher(name="slice 1/2", weight=2.0, teacher="8" * 64, scores=SCORES),),
    trajectory=RecordedTrajectory(logits="9" * 64, scores=SCORES, seconds=3.5),
    vocabularies={
        "words": Vocabulary(
            tokenizer="a" * 64,
            vocab_size=50,
            num_tokens=40,
            pad_id=1,
            id_table="b" * 64,
            tokens={"train": "c" * 64, "test": "d" * 64},
        )
    },
    tables={"vectors/words": "e" * 64},
    oov_share={"vectors/words": 0.25},
    encoder="f" * 64,
)


@pytest.mark.parametrize("prepared", [PREPARED, FULL], ids=["least", "full"])
def test_round_trip_through_blobs(tmp_path: Path, prepared: Prepared) -> None:
    blobs = FolderBlobs(tmp_path)
    assert Prepared.load(blobs, prepared.save(blobs)) == prepared


def test_what_was_prepared_before_there_was_a_choice_is_read(tmp_path: Path) -> None:
    first = ("labels", "tokenizer", "teacher", "teacher_fingerprint", "max_length", "pad_id", "vocab_size")
    rest = ("num_tokens", "id_table", "pools", "profile", "anchors", "format")
    old = {key: value for key, value in PREPARED.to_json().items() if key in (*first, *rest)}
    blobs = FolderBlobs(tmp_path)
    assert Prepared.load(blobs, blobs.put(json.dumps(old).encode())) == PREPARED


def test_the_teachers_vocabulary_is_one_like_the_others() -> None:
    own = FULL.vocabulary("teacher")
    assert (own.num_tokens, own.pad_id) == (FULL.num_tokens, FULL.pad_id)
    assert set(own.tokens) == {"train", "test"}
    assert FULL.vocabulary("words").pad_id == 1


def test_the_name_depends_on_every_pool(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    other = replace(PREPARED, pools={"train": PREPARED.pools["train"]})
    assert other.save(blobs) != PREPARED.save(blobs)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    sha = blobs.put(json.dumps({**PREPARED.to_json(), "format": 99}).encode())
    with pytest.raises(ArtifactError, match="format 99"):
        Prepared.load(blobs, sha)
