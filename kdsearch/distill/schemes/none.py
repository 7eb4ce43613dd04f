"""The control: the student learns from hard labels alone, without the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsearch.core.space import Space
from kdsearch.distill.stage import Scheme, Setting, Stage, hard_term


@dataclass(frozen=True, kw_only=True)
class NoDistillation(Scheme):
    """Cross-entropy on the labelled pool, with as many rows per epoch as the schemes it controls."""

    NAME: ClassVar[str] = "none"
    SPACE: ClassVar[Space] = {}

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """One stage."""
        return (
            Stage(
                name="train",
                pools=("train",),
                terms=(hard_term(),),
                epochs=setting.epochs,
                rows_per_epoch=setting.rows_per_epoch,
            ),
        )
