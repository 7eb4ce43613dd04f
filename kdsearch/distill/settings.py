"""How to train: what decides the weights, and nothing that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdsearch.distill.optimizer import ScheduleKind


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to train; equal settings give equal weights on the same machine."""

    learning_rate: float
    batch_size: int
    seed: int
    objective: str
    """The quality to score, e.g. ``accuracy`` or ``f1:spam``."""
    labels: tuple[str, ...]
    pad_id: int
    device: str = "cpu"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    schedule: ScheduleKind = "linear"
    """Over the rows of all stages."""
    select: Literal["quality", "nll"] = "quality"
    """What makes an epoch the best; the other one breaks ties, then the earlier epoch wins."""
    accumulate: int = 1
    """Micro-batches that a batch is run in, for want of memory. Rows, steps and gradients are those of the
    whole batch but for rounding; dropout draws other numbers, so that the weights differ as with another
    seed."""
