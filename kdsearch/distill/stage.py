"""What a scheme is made of: a scheme lists stages, a stage weighs terms, the loop runs them.

Letters: B rows of a batch, C classes, D width of the student's pooled vector, H of the teacher's,
K historical teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from kdsearch.core.facts import Facts
from kdsearch.core.space import Space
from kdsearch.core.specteacher import JointSpec
from kdsearch.distill.losses import SOFT_LOSSES, hard_label

TEACHER = "teacher"
"""Signal (B, C): logits of the frozen teacher."""
HISTORICAL = "historical"
"""Signal (B, K, C): logits of the historical teachers."""
TRAJECTORY = "trajectory"
"""Signal (B, C): logits of the teacher in training, as recorded at this visit of the row."""
LIVE = "live"
"""Signal (B, C): logits of the teacher that is trained in this very stage, with gradient."""


def hidden_signal(layer: int) -> str:
    """Signal (B, H): mean over the tokens of what teacher layer 1, 2, ... gives."""
    return f"hidden:{layer}"


def anchor_signal(number: int) -> str:
    """Signal (B, C): logits of the teacher's anchor 1, 2, ... in order of training."""
    return f"anchor:{number}"


class Seen(NamedTuple):
    """What a loss term sees of one batch."""

    logits_BC: Tensor
    hidden_BD: Tensor
    """Pooled hidden vector that the student's classifier reads."""
    labels_B: Tensor
    """-1 where a row has no hard label."""
    signals: Mapping[str, Tensor]
    """Those that the stage's terms need; without gradient but `LIVE`."""


@dataclass(frozen=True)
class Term:
    """One weighted loss. A term of weight 0 is never computed: leave it out of the stage."""

    name: str
    weight: float
    loss: Callable[[Seen], Tensor]
    needs: tuple[str, ...] = ()
    """Names of the signals it reads."""
    learned: nn.Module | None = None
    """What is trained with the student for this term alone (a regressor); no part of the student."""
    over: Literal["rows", "labelled"] = "rows"
    """What the loss is a mean over: all rows of a batch, or those that have a hard label."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """A teacher that is trained in the same steps as the student, on the same rows."""

    passes: int
    """Over the pool; afterwards the teacher stands still, and its logits are those of a row's last visit."""
    learning_rate: float
    schedule: Literal["constant", "linear", "student"] = "linear"
    """Of the teacher, over its passes; ``student``: the student's own, over all rows of the trial."""
    student_learning_rate: float | None = None
    """None: the trial's own."""
    clip: Literal["own", "global"] = "own"
    """Whether gradients are clipped to the norm of each of the two, or to that of both together."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a scheme: which pools, which terms, for how long."""

    name: str
    pools: tuple[str, ...]
    terms: tuple[Term, ...]
    epochs: int
    rows_per_epoch: int
    scored: bool = True
    """False where no classifier is trained: neither scored nor a source of best weights."""
    joint: Joint | None = None
    """Only with one pool."""
    then: tuple[Term, ...] = ()
    """Terms of a second turn on the same batch, after the step that `terms` made (ProKT alternates)."""

    def __post_init__(self) -> None:
        if not self.terms or any(term.weight <= 0 for term in self.all_terms):
            raise ValueError(f"stage {self.name!r} needs terms, all of a weight above 0: {self.all_terms}")
        if (self.joint is not None) != (LIVE in self.needs):
            raise ValueError(f"stage {self.name!r}: a live teacher is what LIVE terms need, and nothing else")

    @property
    def all_terms(self) -> tuple[Term, ...]:
        """Of both turns."""
        return self.terms + self.then

    @property
    def follows_training(self) -> bool:
        """Whether the student sees a teacher in training, so that it matters how often a row was drawn."""
        return self.joint is not None or TRAJECTORY in self.needs

    @property
    def needs(self) -> frozenset[str]:
        """Every signal that a term reads."""
        return frozenset(name for term in self.all_terms for name in term.needs)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a study and a trial offer to a scheme."""

    epochs: int
    pools: tuple[str, ...]
    """Every training pool of the study: ``train``, ``unlabelled``, ``augmented``."""
    rows_per_epoch: int
    """The same for every scheme: controls see as many rows as what they are compared with."""
    anchors: int = 0
    historical_weights: tuple[float, ...] = ()
    student_width: int = 0
    """D."""
    teacher_width: int = 0
    """H."""
    joint: JointSpec = field(default_factory=JointSpec)
    seed: int = 0
    """Decides the fresh weights of what a term learns."""


class Refusal(NamedTuple):
    """Why a study cannot have a scheme or student."""

    message: str
    expected: str


def without_teacher(facts: Facts, message: str) -> Refusal | None:
    """A refusal where the teacher cannot be run, since its logits are all that is given."""
    if facts.trainable_teacher:
        return None
    return Refusal(message, "a teacher that can be run (no `logits` under teacher), or the scheme offline")


class Scheme(Protocol):
    """A way of distilling; one file and one entry in `distill.schemes.SCHEMES` each."""

    NAME: ClassVar[str]
    SPACE: ClassVar[Space]
    """All it could ever be asked for; defaults are possible in every study that can have the scheme."""

    @classmethod
    def space(cls, facts: Facts) -> Space:
        """`SPACE` narrowed to what a study offers."""
        return cls.SPACE

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """Why a study cannot have it; None if it can."""
        return None

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """What the training loop runs, in this order."""
        ...


def hard_term(weight: float = 1.0) -> Term:
    """Cross-entropy of the student with the hard label."""
    return Term(
        name="hard",
        weight=weight,
        loss=lambda seen: hard_label(seen.logits_BC, seen.labels_B),
        over="labelled",
    )


def soft_term(weight: float, *, loss: str, temperature: float | None, signal: str = TEACHER) -> Term:
    """The student's distance to logits of a teacher, which feels no gradient of it."""
    distance = SOFT_LOSSES[loss](temperature)
    return Term(
        name="soft",
        weight=weight,
        loss=lambda seen: distance(seen.signals[signal].detach(), seen.logits_BC),
        needs=(signal,),
    )


def distil_terms(
    *, loss: str, temperature: float | None, lambda_soft: float, signal: str = TEACHER
) -> tuple[Term, ...]:
    """(1-λ) · hard label + λ · soft; at λ = 0 and λ = 1 the term of weight 0 is left out."""
    weight = share("lambda", lambda_soft)
    soft = soft_term(weight, loss=loss, temperature=temperature, signal=signal)
    return weighty(hard_term(1 - weight), soft)


def weighty(*terms: Term) -> tuple[Term, ...]:
    """The terms that have any weight."""
    return tuple(term for term in terms if term.weight != 0)


def share(name: str, value: float | None) -> float:
    """A parameter that must be there and lie in [0, 1]."""
    if value is None or not 0 <= value <= 1:
        raise ValueError(f"{name} {value!r} is not between 0 and 1")
    return value
