"""A long step of preparing: who watches it, and what whoever takes over after a death goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from kdsearch.core.blobs import Blobs
from kdsearch.core.canonical import canonical_json


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A checkpoint of fine-tuning, and how it did on the validation pool."""

    tree: str
    nll: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A training up to its last finished epoch."""

    recipe: str
    """Which training it is: a step may consist of several."""
    checkpoint: str
    anchors: tuple[Anchor, ...] = ()

    def put(self, blobs: Blobs) -> str:
        """Store it."""
        return blobs.put(canonical_json(asdict(self)).encode())

    @classmethod
    def find(cls, blobs: Blobs, sha256: str | None, *, recipe: str) -> Unfinished | None:
        """What was stored, if it is there and of this recipe."""
        if sha256 is None or not blobs.exists(sha256):
            return None
        data = json.loads(blobs.open(sha256).read_text())
        if data.get("recipe") != recipe:
            return None
        anchors = tuple(Anchor(**anchor) for anchor in data["anchors"])
        return cls(recipe=recipe, checkpoint=data["checkpoint"], anchors=anchors)


def _nobody(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a long step says how far it is, and learns that it is to let go."""

    unfinished: str | None
    """What a dead holder kept."""
    keep: Callable[[str, str], None]
    """Takes what there is to say and an `Unfinished` that was put."""
    breathe: Callable[[], None]
    should_stop: Callable[[], bool]
    mention: Callable[[str], None] = _nobody
    """Takes what there is to say between two checkpoints."""
