"""Facts: what a study offers to students and schemes, known when it is created.

The search space is narrowed by them, so that nothing impossible is ever suggested, and what a study file
asks for in vain is an error before anything is spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of one study."""

    num_labels: int
    """C."""
    pools: tuple[str, ...]
    """Pools to train on: ``train``, then ``unlabelled`` and ``augmented`` where the study has them."""
    epochs: int
    """Of every trial (`training.epochs`)."""
    anchors: int
    """Checkpoints kept by fine-tuning; 0 where the teacher is used as it is or only its logits are given."""
    num_historical: int
    """Entries of `teachers`."""
    teacher_width: int | None
    """Width of the teacher's hidden vectors; None where only its logits are given."""
    teacher_layers: int | None
    """Encoder layers of the teacher; None where only its logits are given."""
    bert_teacher: bool
    """Whether the teacher is a BERT whose layers a `bert_small` can take over."""
    vector_width: int | None
    """Columns of `pretrained.vectors`; None where the study has none."""
    encoder_layers: int | None
    """Layers of `pretrained.encoder`; None where the study has none."""

    @property
    def trainable_teacher(self) -> bool:
        """Whether there is a teacher to run and train; not so where its logits are all there is."""
        return self.teacher_width is not None

    @property
    def pool_choices(self) -> tuple[str, ...]:
        """What a trial may train on, each written as ``train+unlabelled``: always `train`, and any others."""
        choices = [TRAIN]
        for pool in self.pools:
            if pool != TRAIN:
                choices += [f"{choice}+{pool}" for choice in choices]
        return tuple(choices)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Facts:
        """From what `to_json` gave, also after a trip through JSON text."""
        return cls(**{**data, "pools": tuple(data["pools"])})
