"""Prepared: what a study's preparation left in the artifact store, as one small JSON blob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kdsearch.core.blobs import Blobs
from kdsearch.core.canonical import canonical_json
from kdsearch.core.errors import ArtifactError
from kdsearch.core.records import HardwareProfile

FORMAT = 1
POOLS = ("train", "validation", "test", "unlabelled")


@dataclass(frozen=True, kw_only=True)
class PreparedPool:
    """One tokenised pool and the teacher's logits on it."""

    tokens: str
    """SHA-256 of the saved TokenPool."""
    logits: str | None
    """SHA-256 of a float32 ``.npy`` (rows, classes); None where the teacher was not asked (test)."""
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a worker or an export needs of a study, by content and without any path."""

    labels: tuple[str, ...]
    tokenizer: str
    """Tree with the tokenizer's files."""
    teacher: str | None
    """Tree with the teacher that labels; None if there is none to load."""
    teacher_fingerprint: str
    max_length: int
    pad_id: int
    vocab_size: int
    """Of the teacher's tokenizer."""
    num_tokens: int
    """Rows of a student's embedding: the tokens that occur, padding and unknown included."""
    id_table: str
    """SHA-256 of an int64 ``.npy`` (vocab_size,): tokenizer id -> embedding row."""
    pools: Mapping[str, PreparedPool]
    """By name: train, validation, and where the study has them test and unlabelled."""
    profile: HardwareProfile
    """Where latency is measured."""
    anchors: tuple[str, ...] = ()
    """Trees of the teacher's checkpoints in order of training."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prepared:
        """From what `to_json` gave, also after a trip through JSON text."""
        if data.get("format") != FORMAT:
            raise ArtifactError(
                f"this study was prepared in format {data.get('format')!r}, this kdsearch reads {FORMAT}",
                hint="use the kdsearch version that prepared the study",
            )
        fields = {key: value for key, value in data.items() if key != "format"}
        return cls(
            **{
                **fields,
                "labels": tuple(data["labels"]),
                "anchors": tuple(data["anchors"]),
                "pools": {name: PreparedPool(**pool) for name, pool in data["pools"].items()},
                "profile": HardwareProfile(**data["profile"]),
            }
        )

    def save(self, blobs: Blobs) -> str:
        """Store the manifest and return its SHA-256."""
        return blobs.put(canonical_json(self.to_json()).encode())

    @classmethod
    def load(cls, blobs: Blobs, sha256: str) -> Prepared:
        """Read a stored manifest."""
        return cls.from_json(json.loads(blobs.open(sha256).read_text(encoding="utf-8")))
