"""What a scheme is made of: a scheme lists stages, a stage weighs terms, the loop runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

from kdsearch.core.space import Space
from kdsearch.distill.losses import SOFT_LOSSES, hard_label


class Seen(NamedTuple):
    """What a loss term sees of one batch (B rows, C classes, D student width)."""

    logits_BC: Tensor
    hidden_BD: Tensor
    labels_B: Tensor
    """-1 where a row has no hard label."""
    teacher_logits_BC: Tensor | None
    """Without gradient; None where no term of the stage asks for them."""


@dataclass(frozen=True)
class Term:
    """One weighted loss. A term of weight 0 is never computed: leave it out of the stage."""

    name: str
    weight: float
    loss: Callable[[Seen], Tensor]
    needs_teacher: bool = False


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

    def __post_init__(self) -> None:
        if not self.terms or any(term.weight <= 0 for term in self.terms):
            raise ValueError(f"stage {self.name!r} needs terms, all of a weight above 0: {self.terms}")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the teacher."""
        return any(term.needs_teacher for term in self.terms)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a study offers to every scheme alike."""

    epochs: int
    pools: tuple[str, ...]
    """``train``, and ``unlabelled`` where the study has such a pool."""
    rows_per_epoch: int
    """Rows of the largest scheme's pools: controls see as many as what they are compared with."""


class Scheme(Protocol):
    """A way of distilling; one file and one entry in `distill.schemes.SCHEMES` each."""

    NAME: ClassVar[str]
    SPACE: ClassVar[Space]

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """What the training loop runs, in this order."""
        ...


def hard_term(weight: float = 1.0) -> Term:
    """Cross-entropy with the hard label."""
    return Term(name="hard", weight=weight, loss=lambda seen: hard_label(seen.logits_BC, seen.labels_B))


def soft_term(weight: float, *, loss: str, temperature: float | None) -> Term:
    """The distance to the teacher's logits."""
    distance = SOFT_LOSSES[loss](temperature)

    def against_teacher(seen: Seen) -> Tensor:
        assert seen.teacher_logits_BC is not None, "the loop gives teacher logits where they are needed"
        return distance(seen.teacher_logits_BC, seen.logits_BC)

    return Term(name="soft", weight=weight, loss=against_teacher, needs_teacher=True)


def distil_terms(*, loss: str, temperature: float | None, lambda_soft: float) -> tuple[Term, ...]:
    """(1-λ) · hard label + λ · soft; at λ = 0 and λ = 1 the term of weight 0 is left out."""
    if not 0 <= lambda_soft <= 1:
        raise ValueError(f"lambda {lambda_soft!r} is not between 0 and 1")
    terms = (hard_term(1 - lambda_soft), soft_term(lambda_soft, loss=loss, temperature=temperature))
    return tuple(term for term in terms if term.weight > 0)
