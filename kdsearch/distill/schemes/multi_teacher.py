"""Several historical teachers at once: the soft target is the weighted mean of their probabilities.

Notable: not the mean of their logits, in which an unsure teacher blunts a sure one. Under MSE the target is
the centred log of that mean, at temperature 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsearch.core.facts import Facts
from kdsearch.distill.losses import MEAN_LOSSES
from kdsearch.distill.stage import HISTORICAL, Refusal, Setting, Stage, Term, hard_term, share, weighty
from kdsearch.distill.stored import StoredLogits


@dataclass(frozen=True, kw_only=True)
class MultiTeacher(StoredLogits):
    """(1-λ) · CE + λ · KD (or MSE) against the mean of the historical teachers."""

    NAME: ClassVar[str] = "multi_teacher"

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """There must be such teachers."""
        if facts.num_historical:
            return None
        return Refusal(
            f"the scheme {cls.NAME} needs historical teachers, and the study names none",
            "a list under `teachers`, e.g. teachers: [{slice: 1/2}, {slice: 2/2}]",
        )

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage."""
        weight = share("lambda", self.lambda_soft)
        terms = weighty(hard_term(1 - weight), self._soft(weight, setting.historical_weights))
        return (self.stage(setting, name="distil", terms=terms),)

    def _soft(self, weight: float, teachers: tuple[float, ...]) -> Term:
        if not teachers:
            raise ValueError("the study has no historical teachers")
        distance = MEAN_LOSSES[self.loss](self.temperature, teachers)
        return Term(
            name="soft",
            weight=weight,
            loss=lambda seen: distance(seen.signals[HISTORICAL].detach(), seen.logits_BC),
            needs=(HISTORICAL,),
        )
