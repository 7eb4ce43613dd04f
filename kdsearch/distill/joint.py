"""What the schemes share that train a teacher beside the student: its terms, and when it cannot be.

Letters: v logits of the teacher in training, z of the student, sg stops the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kdsearch.core.facts import Facts
from kdsearch.distill.losses import hard_label, soft_target
from kdsearch.distill.stage import LIVE, Joint, Refusal, Seen, Setting, Stage, Term, without_teacher

LABELLED = ("train",)
"""Joint schemes see this pool alone: their teacher learns from hard labels."""


def joint_refusal(name: str, facts: Facts) -> Refusal | None:
    """Where there is no teacher to train."""
    return without_teacher(
        facts, f"the scheme {name} trains the teacher, and of this one only the logits are given"
    )


def joint_stage(
    setting: Setting, terms: tuple[Term, ...], *, teacher: Joint | None = None, then: tuple[Term, ...] = ()
) -> Stage:
    """All epochs on the labelled pool; the teacher as the study says, unless told otherwise."""
    study = setting.joint
    return Stage(
        name="joint",
        pools=LABELLED,
        terms=terms,
        then=then,
        epochs=setting.epochs,
        rows_per_epoch=setting.rows_per_epoch,
        joint=teacher or Joint(passes=study.epochs, learning_rate=study.learning_rate),
    )


def teacher_hard_term(weight: float = 1.0) -> Term:
    """CE(v)."""
    return Term(
        name="teacher_hard",
        weight=weight,
        loss=lambda seen: hard_label(seen.signals[LIVE], seen.labels_B),
        needs=(LIVE,),
        over="labelled",
    )


def feedback_term(weight: float, *, temperature: float) -> Term:
    """KD(v, sg z): the student's soft loss as the teacher feels it.

    KL, never soft cross-entropy, which has the same student gradient but drives a teacher to one-hot.
    """
    return _of_teacher(
        "teacher_soft",
        weight,
        lambda seen: soft_target(seen.signals[LIVE], seen.logits_BC.detach(), temperature),
    )


def imitation_term(weight: float, *, temperature: float) -> Term:
    """KD(sg z, v): the teacher keeps near the student (ProKT)."""
    return _of_teacher(
        "teacher_soft",
        weight,
        lambda seen: soft_target(seen.logits_BC.detach(), seen.signals[LIVE], temperature),
    )


def shared_soft_term(weight: float, *, temperature: float) -> Term:
    """KD(v, z) as it stands: both feel it."""
    return Term(
        name="soft",
        weight=weight,
        loss=lambda seen: soft_target(seen.signals[LIVE], seen.logits_BC, temperature),
        needs=(LIVE,),
    )


def _of_teacher(name: str, weight: float, loss: Callable[[Seen], Tensor]) -> Term:
    return Term(name=name, weight=weight, loss=loss, needs=(LIVE,))
