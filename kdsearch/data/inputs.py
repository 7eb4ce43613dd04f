"""Inputs: what the launching machine stored with a study, so that a worker elsewhere needs no path of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from kdsearch.core.blobs import Blobs
from kdsearch.core.canonical import canonical_json
from kdsearch.core.facts import Facts

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
    facts: Facts | None = None
    """What the study offers; None in studies of before there was a choice."""
    historical: tuple[str | None, ...] = ()
    """Tree of each of `teachers`, in their order; None where it is fine-tuned on a slice."""
    logits: str | None = None
    """SHA-256 of the given logits as a saved Shard; None where the teacher runs here."""
    logits_fingerprint: str | None = None
    """Of the given logits; stands for the teacher's."""
    vectors: str | None = None
    """SHA-256 of the file of word vectors, as given."""
    encoder: str | None = None
    """Tree of `pretrained.encoder`."""

    def save(self, blobs: Blobs) -> str:
        """Store the manifest and return its SHA-256."""
        return blobs.put(canonical_json(asdict(self)).encode())

    @classmethod
    def load(cls, blobs: Blobs, sha256: str) -> Inputs:
        """Read a stored manifest."""
        data = json.loads(blobs.open(sha256).read_text(encoding="utf-8"))
        facts = data.get("facts")
        decoded = {
            "facts": None if facts is None else Facts.from_json(facts),
            "historical": tuple(data.get("historical", ())),
        }
        return cls(**{**data, **decoded})
