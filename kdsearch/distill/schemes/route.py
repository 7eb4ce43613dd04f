"""Route-constrained optimisation (RCO, Jin et al. 2019): the teacher's anchors in order of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsearch.core.facts import Facts
from kdsearch.distill.stage import Refusal, Setting, Stage, anchor_signal, without_teacher
from kdsearch.distill.stored import StoredLogits


@dataclass(frozen=True, kw_only=True)
class Route(StoredLogits):
    """`offline` against one anchor after the other; the epochs are split evenly."""

    NAME: ClassVar[str] = "route"

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """There must be anchors: checkpoints of a fine-tuning."""
        if facts.trainable_teacher and not facts.anchors:
            return Refusal(
                f"the scheme {cls.NAME} follows the anchors of a fine-tuning, and the teacher has none",
                "finetune: {anchors: 4} under teacher, or the scheme offline",
            )
        return without_teacher(
            facts, f"the scheme {cls.NAME} follows the anchors of a teacher, and only its logits are given"
        )

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage an anchor; where epochs are fewer, as many anchors, evenly chosen up to the last one."""
        visits = min(setting.anchors, setting.epochs)
        if visits < 1:
            raise ValueError("the study's teacher has no anchors")
        return tuple(
            self.distil(
                setting,
                name=f"anchor {anchor}",
                signal=anchor_signal(anchor),
                epochs=_share(setting.epochs, visit, visits),
            )
            for visit, anchor in enumerate(evenly(setting.anchors, visits))
        )


def evenly(anchors: int, visits: int) -> tuple[int, ...]:
    """Numbers from 1 to `anchors`, rising in steps that differ by one at most; the last one is in it."""
    return tuple((visit + 1) * anchors // visits for visit in range(visits))


def _share(epochs: int, visit: int, visits: int) -> int:
    """What is left over goes to the later visits, whose teachers are better."""
    return (visit + 1) * epochs // visits - visit * epochs // visits
