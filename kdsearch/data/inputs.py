"""Inputs: what the launching machine stored with a study, so that a worker elsewhere needs no path of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from kdsearch.core.blobs import Blobs
from kdsearch.core.canonical import canonical_json

TEACHER_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""What a teacher's folder holds for us; model cards and other frameworks' weights stay behind."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The blobs a study starts from."""

    dataset: str
    """SHA-256 of the saved Dataset."""
    teacher: str | None
    """Tree of the teacher as given; None where it is built from a configuration."""
    teacher_classifies: bool
    """Whether it is used as it is, without fine-tuning."""

    def save(self, blobs: Blobs) -> str:
        """Store the manifest and return its SHA-256."""
        return blobs.put(canonical_json(asdict(self)).encode())

    @classmethod
    def load(cls, blobs: Blobs, sha256: str) -> Inputs:
        """Read a stored manifest."""
        return cls(**json.loads(blobs.open(sha256).read_text(encoding="utf-8")))
