"""Joint training with isolated parameters: the student follows a teacher that is still in training.

Notable: the teacher's path does not depend on the student, so that it is recorded once per study and
replayed in every trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsearch.core.facts import Facts
from kdsearch.core.space import Space
from kdsearch.distill.joint import LABELLED, joint_refusal
from kdsearch.distill.parameters import DISTANCE
from kdsearch.distill.stage import TRAJECTORY, Refusal, Scheme, Setting, Stage, distil_terms


@dataclass(frozen=True, kw_only=True)
class JointIsolated(Scheme):
    """Teacher: CE(v), recorded; student: (1-λ) · CE(z) + λ · KD(sg v, z) (or MSE)."""

    lambda_soft: float
    loss: str = "kl"
    temperature: float | None = None
    """Exists for `kl` only."""

    NAME: ClassVar[str] = "joint_isolated"
    SPACE: ClassVar[Space] = DISTANCE

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """There must be a teacher to train."""
        return joint_refusal(cls.NAME, facts)

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage."""
        return (
            Stage(
                name="joint",
                pools=LABELLED,
                terms=distil_terms(
                    loss=self.loss,
                    temperature=self.temperature,
                    lambda_soft=self.lambda_soft,
                    signal=TRAJECTORY,
                ),
                epochs=setting.epochs,
                rows_per_epoch=setting.rows_per_epoch,
            ),
        )
