"""Prepared: what a study's preparation left in the artifact store, as one small JSON blob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kdsearch.core.blobs import Blobs
from kdsearch.core.canonical import canonical_json
from kdsearch.core.errors import ArtifactError
from kdsearch.core.records import HardwareProfile, Scores

FORMAT = 1
TRAINING_POOLS = ("train", "unlabelled", "augmented")
"""Pools that a student may be trained on, in this order."""
POOLS = ("train", "validation", "test", "unlabelled", "augmented")
TEACHER_VOCABULARY = "teacher"
"""The vocabulary that every study has: the teacher's own tokens."""


@dataclass(frozen=True, kw_only=True)
class PreparedPool:
    """One tokenised pool and the teacher's logits on it."""

    tokens: str
    """SHA-256 of the saved TokenPool."""
    logits: str | None
    """SHA-256 of a float32 ``.npy`` (rows, classes); None where the teacher was not asked (test)."""
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """One way to read the study's texts; rows and keys of its pools are those of every other one."""

    tokenizer: str
    """Tree with the tokenizer's files."""
    vocab_size: int
    num_tokens: int
    """Rows of a student's embedding: the tokens that occur, padding and unknown included."""
    pad_id: int
    id_table: str
    """SHA-256 of an int64 ``.npy`` (vocab_size,): tokenizer id -> embedding row."""
    tokens: Mapping[str, str]
    """Pool -> SHA-256 of its TokenPool; of every pool of the study, `test` included."""


@dataclass(frozen=True, kw_only=True)
class HistoricalTeacher:
    """One of the study's `teachers`."""

    name: str
    """As the study file names it: its model, or ``slice 1/3``."""
    weight: float
    teacher: str
    """Tree with the classifier."""
    scores: Scores
    """On the validation pool."""


@dataclass(frozen=True, kw_only=True)
class RecordedTrajectory:
    """A teacher in training, recorded once: what `joint_isolated` replays."""

    logits: str
    """SHA-256 of a float32 ``.npy`` (passes, rows, classes) over the labelled pool."""
    scores: Scores
    """Of the trained teacher on the validation pool."""
    seconds: float
    """What recording it took."""


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
    best: Mapping[str, str] = field(default_factory=dict)
    """Trees of the best checkpoints, by ``loss`` and by ``accuracy``; empty where none was fine-tuned."""
    teacher_start: str | None = None
    """Tree of the teacher before fine-tuning; None unless a scheme trains it beside the student."""
    teacher_seconds: float | None = None
    """What fine-tuning took; None where the teacher is used as it is, or nobody wrote it down."""
    signals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Signal (``historical``, ``hidden:3``, ``anchor:1``) -> pool -> SHA-256 of a ``.npy``.

    Only what the study's schemes can ask for; ``teacher`` is not in here but in `pools`.
    """
    historical: tuple[HistoricalTeacher, ...] = ()
    trajectory: RecordedTrajectory | None = None
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    """``words`` and ``characters`` where a student may read them; the teacher's is `vocabulary`."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """``teacher``, ``vectors/<vocabulary>`` -> SHA-256 of a float32 ``.npy`` (num_tokens, width)."""
    oov_share: Mapping[str, float] = field(default_factory=dict)
    """Table -> share of the running tokens of the training pools that it has no vector for."""
    encoder: str | None = None
    """Tree of `pretrained.encoder`."""

    def vocabulary(self, name: str) -> Vocabulary:
        """``teacher``, or one of `vocabularies`."""
        if name != TEACHER_VOCABULARY:
            return self.vocabularies[name]
        return Vocabulary(
            tokenizer=self.tokenizer,
            vocab_size=self.vocab_size,
            num_tokens=self.num_tokens,
            pad_id=self.pad_id,
            id_table=self.id_table,
            tokens={pool: stored.tokens for pool, stored in self.pools.items()},
        )

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
        found = data.get("trajectory")
        return cls(
            **{
                **fields,
                "labels": tuple(data["labels"]),
                "anchors": tuple(data["anchors"]),
                "pools": {name: PreparedPool(**pool) for name, pool in data["pools"].items()},
                "profile": HardwareProfile(**data["profile"]),
                "historical": tuple(
                    HistoricalTeacher(**{**one, "scores": Scores(**one["scores"])})
                    for one in data.get("historical", ())
                ),
                "trajectory": found and RecordedTrajectory(**{**found, "scores": Scores(**found["scores"])}),
                "vocabularies": {
                    name: Vocabulary(**one) for name, one in data.get("vocabularies", {}).items()
                },
            }
        )

    def save(self, blobs: Blobs) -> str:
        """Store the manifest and return its SHA-256."""
        return blobs.put(canonical_json(self.to_json()).encode())

    @classmethod
    def load(cls, blobs: Blobs, sha256: str) -> Prepared:
        """Read a stored manifest."""
        return cls.from_json(json.loads(blobs.open(sha256).read_text(encoding="utf-8")))
