"""The steps of a training: one AdamW over all that learns, with a rate and a schedule for each learner.

What a step found no gradient for is left as it is: neither moved nor decayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

ScheduleKind: TypeAlias = Literal["constant", "linear"]
WARM_UP = 0.1
"""Share of all rows over which the linear schedule rises to the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over the rows that a learner sees."""

    learning_rate: float
    kind: ScheduleKind
    rows: int
    """``linear``: up over the first tenth of these rows, then down to 0 at the last."""

    def rate(self, row: float) -> float:
        """Of the step whose middle has `row` rows behind it."""
        if self.kind == "constant":
            return self.learning_rate
        share = row / self.rows
        return self.learning_rate * max(0.0, min(share / WARM_UP, (1 - share) / (1 - WARM_UP)))


class Learner:
    """Parameters with one schedule, clipped together; frozen ones are left out."""

    def __init__(self, parameters: Iterable[nn.Parameter], schedule: Schedule) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.schedule = schedule


class Optimizer:
    """Bias-corrected AdamW; biases and norms are not decayed."""

    def __init__(
        self,
        learners: Sequence[Learner],
        *,
        weight_decay: float,
        clip_norm: float,
        clip: Literal["own", "global"] = "own",
    ) -> None:
        self._schedules = [learner.schedule for learner in learners for _ in range(2)]
        self._clip_norm = clip_norm
        self._clipped_together = [learner.parameters for learner in learners]
        if clip == "global":
            self._clipped_together = [[p for learner in learners for p in learner.parameters]]
        groups = []
        for learner in learners:
            matrices = [p for p in learner.parameters if p.ndim > 1]
            vectors = [p for p in learner.parameters if p.ndim <= 1]
            groups.append({"params": matrices, "weight_decay": weight_decay})
            groups.append({"params": vectors, "weight_decay": 0.0})
        self.adamw = torch.optim.AdamW(groups, fused=True)

    def step(self, row: float) -> None:
        """Clip, step and forget the gradients; `row` rows lie behind the middle of this step."""
        for group, schedule in zip(self.adamw.param_groups, self._schedules, strict=True):
            group["lr"] = schedule.rate(row)
        for parameters in self._clipped_together:
            nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
