"""Losses of distillation: hard label, soft target (Hinton et al. 2015), logit MSE (Tang et al. 2019).

Shapes: B rows of a batch, C classes. All are computed in float32, whatever the logits' type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

NO_LABEL = -1

SoftLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(teacher_logits_BC, logits_BC) -> scalar."""


def hard_label(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy summed over the rows that have a label, divided by max(1, their number)."""
    total = F.cross_entropy(logits_BC.float(), labels_B, ignore_index=NO_LABEL, reduction="sum")
    return total / (labels_B != NO_LABEL).sum().clamp(min=1)


def soft_target(teacher_logits_BC: Tensor, logits_BC: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(v/T) ‖ softmax(z/T)), mean over rows (not over classes).

    T² keeps the size of the gradient when T changes, so that T is not searched as a second λ.
    """
    log_p = F.log_softmax(teacher_logits_BC.float() / temperature, dim=-1)
    log_q = F.log_softmax(logits_BC.float() / temperature, dim=-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def logit_mse(teacher_logits_BC: Tensor, logits_BC: Tensor) -> Tensor:
    """½ · mean over rows of Σ_c (z̄ - v̄)² / C on class-centred logits: `soft_target` for T → ∞."""
    difference_BC = logits_BC.float() - teacher_logits_BC.float()
    centred_BC = difference_BC - difference_BC.mean(dim=-1, keepdim=True)
    return 0.5 * centred_BC.square().mean()


def _kl(temperature: float | None) -> SoftLoss:
    if temperature is None:
        raise ValueError("the loss `kl` needs a temperature")
    return lambda teacher_logits_BC, logits_BC: soft_target(teacher_logits_BC, logits_BC, temperature)


def _mse(temperature: float | None) -> SoftLoss:
    if temperature is not None:
        raise ValueError(f"the loss `mse` has no temperature, got {temperature!r}")
    return logit_mse


SOFT_LOSSES: Mapping[str, Callable[[float | None], SoftLoss]] = {"kl": _kl, "mse": _mse}
"""By name in the study file; each is made from the temperature (None where there is none)."""
