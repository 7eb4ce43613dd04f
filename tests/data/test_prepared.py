"""Prepared survives its trip through the artifact store, and refuses a format it does not know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kdsearch.core.canonical import sha256_hex
from kdsearch.core.errors import ArtifactError
from kdsearch.core.records import HardwareProfile
from kdsearch.data.prepared import Prepared, PreparedPool


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


def test_round_trip_through_blobs(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    assert Prepared.load(blobs, PREPARED.save(blobs)) == PREPARED


def test_the_name_depends_on_every_pool(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    other = replace(PREPARED, pools={"train": PREPARED.pools["train"]})
    assert other.save(blobs) != PREPARED.save(blobs)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    sha = blobs.put(json.dumps({**PREPARED.to_json(), "format": 99}).encode())
    with pytest.raises(ArtifactError, match="format 99"):
        Prepared.load(blobs, sha)
