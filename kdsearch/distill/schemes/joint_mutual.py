"""Joint training in which the student's soft loss updates the teacher too, and ProKT (2107.09305)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from kdsearch.core.facts import Facts
from kdsearch.core.space import Choice, Param, Range, Space
from kdsearch.distill import joint
from kdsearch.distill.parameters import LAMBDA, SOFTENING
from kdsearch.distill.stage import (
    LIVE,
    Refusal,
    Scheme,
    Setting,
    Stage,
    distil_terms,
    share,
    soft_term,
    weighty,
)

MUTUAL = ("variant", "mutual")
PROKT = ("variant", "prokt")
SHARE = Param(kind="float", default=Range(0.1, 1.0), low=0.0, high=1.0)


@dataclass(frozen=True, kw_only=True)
class JointMutual(Scheme):
    """Student: (1-λ) · CE(z) + λ · KD(sg v, z); teacher: CE(v) + μλ · KD(v, sg z); one step of both.

    ProKT takes turns on each batch: teacher (1-m) · CE(v) + m · KD(sg z, v), then student KD(sg v, z).
    """

    temperature: float
    variant: str = "mutual"
    lambda_soft: float | None = None
    mu: float | None = None
    teacher_mix: float | None = None

    NAME: ClassVar[str] = "joint_mutual"
    SPACE: ClassVar[Space] = {
        "variant": Param(
            kind="str",
            default=Choice(("mutual", "prokt")),
            allowed=("mutual", "prokt"),
            doc="one step of both, or teacher and student in turns",
        ),
        "temperature": SOFTENING,
        "lambda": replace(LAMBDA, when=MUTUAL),
        "mu": replace(SHARE, when=MUTUAL, doc="share of the soft loss that the teacher feels"),
        "teacher_mix": replace(
            SHARE, default=Range(0.1, 0.5), when=PROKT, doc="weight of the student in the teacher's loss"
        ),
    }

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """There must be a teacher to train."""
        return joint.joint_refusal(cls.NAME, facts)

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage."""
        return ({"mutual": self._mutual, "prokt": self._prokt}[self.variant](setting),)

    def _mutual(self, setting: Setting) -> Stage:
        lambda_soft, mu = share("lambda", self.lambda_soft), share("mu", self.mu)
        student = distil_terms(loss="kl", temperature=self.temperature, lambda_soft=lambda_soft, signal=LIVE)
        feedback = joint.feedback_term(mu * lambda_soft, temperature=self.temperature)
        return joint.joint_stage(setting, weighty(*student, joint.teacher_hard_term(), feedback))

    def _prokt(self, setting: Setting) -> Stage:
        mix = share("teacher_mix", self.teacher_mix)
        imitation = joint.imitation_term(mix, temperature=self.temperature)
        student = soft_term(1.0, loss="kl", temperature=self.temperature, signal=LIVE)
        return joint.joint_stage(
            setting, weighty(joint.teacher_hard_term(1 - mix), imitation), then=(student,)
        )
