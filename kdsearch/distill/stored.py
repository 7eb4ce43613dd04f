"""Distilling from logits that are stored row by row: what the schemes with a frozen teacher share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsearch.core.facts import Facts
from kdsearch.core.space import Space
from kdsearch.distill.parameters import DISTANCE, POOLS, with_pools
from kdsearch.distill.stage import TEACHER, Scheme, Setting, Stage, Term, distil_terms


@dataclass(frozen=True, kw_only=True)
class StoredLogits(Scheme):
    """(1-λ) · CE + λ · KD (or MSE); rows without a label feel the soft term alone."""

    lambda_soft: float
    loss: str = "kl"
    temperature: float | None = None
    """Exists for `kl` only."""
    pools: str | None = None
    """Joined by ``+``; None: every pool of the study, as before there was a choice."""

    SPACE: ClassVar[Space] = {**DISTANCE, "pools": POOLS}

    @classmethod
    def space(cls, facts: Facts) -> Space:
        """With the pools that the study has."""
        return with_pools(cls.SPACE, facts)

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage against the study's teacher."""
        return (self.distil(setting),)

    def distil(
        self, setting: Setting, *, name: str = "distil", signal: str = TEACHER, epochs: int | None = None
    ) -> Stage:
        """A stage of so many epochs (None: all of them) against the logits of this signal."""
        terms = distil_terms(
            loss=self.loss, temperature=self.temperature, lambda_soft=self.lambda_soft, signal=signal
        )
        return self.stage(setting, name=name, terms=terms, epochs=epochs)

    def stage(
        self,
        setting: Setting,
        *,
        name: str,
        terms: tuple[Term, ...],
        epochs: int | None = None,
        scored: bool = True,
    ) -> Stage:
        """A stage on the scheme's pools."""
        return Stage(
            name=name,
            pools=self._chosen_pools(setting),
            terms=terms,
            epochs=setting.epochs if epochs is None else epochs,
            rows_per_epoch=setting.rows_per_epoch,
            scored=scored,
        )

    def _chosen_pools(self, setting: Setting) -> tuple[str, ...]:
        if self.pools is None:
            return setting.pools
        chosen = tuple(self.pools.split("+"))
        if missing := [pool for pool in chosen if pool not in setting.pools]:
            raise ValueError(f"the study has no pool {missing[0]!r}, only {', '.join(setting.pools)}")
        return chosen
