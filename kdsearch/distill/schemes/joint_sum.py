"""Joint training with the losses added: one loss, gradients into both, one learning rate, one clip.

Notable: at μ = 1 `joint_mutual` has the same gradients. What differs is the optimizer, so that `rates` and
`clip` say which of the two makes the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from kdsearch.core.facts import Facts
from kdsearch.core.space import Fixed, Param, Range, Space
from kdsearch.distill import joint
from kdsearch.distill.parameters import LAMBDA, SOFTENING
from kdsearch.distill.stage import Joint, Refusal, Scheme, Setting, Stage, hard_term, share, weighty


@dataclass(frozen=True, kw_only=True)
class JointSum(Scheme):
    """CE(v) + (1-λ) · CE(z) + λ · KD(v, z), nothing stopped."""

    temperature: float
    lambda_soft: float
    clip: Literal["global", "own"] = "global"
    rates: Literal["shared", "own"] = "shared"
    learning_rate: float | None = None
    """Exists for shared rates only."""

    NAME: ClassVar[str] = "joint_sum"
    SPACE: ClassVar[Space] = {
        "temperature": SOFTENING,
        "lambda": LAMBDA,
        "clip": Param(
            kind="str",
            default=Fixed("global"),
            allowed=("global", "own"),
            doc="gradients clipped to the norm of both together, or of each",
        ),
        "rates": Param(
            kind="str",
            default=Fixed("shared"),
            allowed=("shared", "own"),
            doc="one learning rate for both, or the trial's and the study's `teacher.joint`",
        ),
        "learning_rate": Param(
            kind="float",
            default=Range(1e-5, 1e-3, log=True),
            low=0.0,
            high=1.0,
            open_low=True,
            when=("rates", "shared"),
            doc="of both, in place of the trial's",
        ),
    }

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """There must be a teacher to train."""
        return joint.joint_refusal(cls.NAME, facts)

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage."""
        weight = share("lambda", self.lambda_soft)
        terms = weighty(
            hard_term(1 - weight),
            joint.teacher_hard_term(),
            joint.shared_soft_term(weight, temperature=self.temperature),
        )
        teacher = {"shared": self._shared, "own": self._own}[self.rates](setting)
        return (joint.joint_stage(setting, terms, teacher=teacher),)

    def _shared(self, setting: Setting) -> Joint:
        if self.learning_rate is None:
            raise ValueError("shared rates need a learning rate")
        return Joint(
            passes=setting.joint.epochs,
            learning_rate=self.learning_rate,
            schedule="student",
            student_learning_rate=self.learning_rate,
            clip=self.clip,
        )

    def _own(self, setting: Setting) -> Joint:
        if self.learning_rate is not None:
            raise ValueError(f"with own rates there is no shared learning rate, got {self.learning_rate!r}")
        return Joint(passes=setting.joint.epochs, learning_rate=setting.joint.learning_rate, clip=self.clip)
