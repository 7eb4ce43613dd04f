"""Offline distillation from cached logits (Hinton et al. 2015; MSE form: Tang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsearch.core.space import Choice, Param, Range, Space
from kdsearch.distill.stage import Setting, Stage, distil_terms


@dataclass(frozen=True, kw_only=True)
class Offline:
    """(1-λ) · CE + λ · KD (or MSE), on every pool; rows without a label feel the soft term alone."""

    lambda_soft: float
    loss: str = "kl"
    temperature: float | None = None
    """Exists for `kl` only."""

    NAME: ClassVar[str] = "offline"
    SPACE: ClassVar[Space] = {
        "loss": Param(
            kind="str",
            default=Choice(("kl", "mse")),
            allowed=("kl", "mse"),
            doc="distance to the teacher's logits",
        ),
        "temperature": Param(
            kind="float",
            default=Range(1.0, 16.0, log=True),
            low=1.0,
            high=64.0,
            when=("loss", "kl"),
            doc="softens both distributions; its square keeps the gradient's size",
        ),
        "lambda": Param(
            kind="float",
            default=Range(0.1, 1.0),
            low=0.0,
            high=1.0,
            open_low=True,
            doc="weight of the soft term; the hard label has 1 - lambda (0 would be `none` again)",
        ),
    }

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage."""
        return (
            Stage(
                name="distil",
                pools=setting.pools,
                terms=distil_terms(
                    loss=self.loss, temperature=self.temperature, lambda_soft=self.lambda_soft
                ),
                epochs=setting.epochs,
                rows_per_epoch=setting.rows_per_epoch,
            ),
        )
