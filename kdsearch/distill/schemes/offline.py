"""Offline distillation from cached logits (Hinton et al. 2015; MSE form: Tang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsearch.distill.stored import StoredLogits


@dataclass(frozen=True, kw_only=True)
class Offline(StoredLogits):
    """(1-λ) · CE + λ · KD (or MSE) against the study's teacher, in one stage."""

    NAME: ClassVar[str] = "offline"
