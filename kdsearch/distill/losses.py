"""Losses of distillation: hard label, soft target (Hinton et al. 2015), logit MSE (Tang et al. 2019), hint.

Shapes: B rows of a batch, C classes, K teachers, H width of the teacher's hidden vector. All are computed in
float32, whatever the logits' type; none stops a gradient: terms do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

NO_LABEL = -1

SoftLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(teacher_logits, logits_BC) -> scalar."""


def hard_label(logits_BC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the rows that have a label, divided by max(1, their number).

    `smoothing` is the share of each label that is spread over all classes.
    """
    total = F.cross_entropy(
        logits_BC.float(), labels_B, ignore_index=NO_LABEL, reduction="sum", label_smoothing=smoothing
    )
    return total / (labels_B != NO_LABEL).sum().clamp(min=1)


def soft_target(teacher_logits_BC: Tensor, logits_BC: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(v/T) ‖ softmax(z/T)), mean over rows (not over classes).

    T² keeps the size of the gradient when T changes, so that T is not searched as a second λ.
    """
    return _divergence(teacher_logits_BC.float() / temperature, logits_BC, temperature)


def logit_mse(teacher_logits_BC: Tensor, logits_BC: Tensor) -> Tensor:
    """½ · mean over rows of Σ_c (z̄ - v̄)² / C on class-centred logits: `soft_target` for T → ∞."""
    difference_BC = logits_BC.float() - teacher_logits_BC.float()
    centred_BC = difference_BC - difference_BC.mean(dim=-1, keepdim=True)
    return 0.5 * centred_BC.square().mean()


def hint(predicted_BH: Tensor, hidden_BH: Tensor) -> Tensor:
    """Mean over rows and dimensions of the squared distance (FitNets, Romero et al. 2015)."""
    return F.mse_loss(predicted_BH.float(), hidden_BH.float())


def mean_of_teachers(teacher_logits_BKC: Tensor, weights: Sequence[float], temperature: float) -> Tensor:
    """Logits s_BC whose softmax is the weighted mean of the teachers' softmax(v/T).

    A mean of probabilities, not of logits: an unsure teacher does not blunt a sure one. One teacher gives
    v/T itself, to the last bit.
    """
    if teacher_logits_BKC.ndim != 3 or teacher_logits_BKC.shape[1] != len(weights):
        raise ValueError(f"{len(weights)} weights for teachers' logits of {tuple(teacher_logits_BKC.shape)}")
    softened_BKC = teacher_logits_BKC.float() / temperature
    log_weights_K = softened_BKC.new_tensor([math.log(weight) for weight in weights])
    shift_BK = log_weights_K - softened_BKC.logsumexp(dim=-1)
    # Relative to the first teacher: what all classes of a row have in common says nothing.
    return (softened_BKC + (shift_BK - shift_BK[:, :1]).unsqueeze(-1)).logsumexp(dim=1)


def _divergence(softened_teacher_BC: Tensor, logits_BC: Tensor, temperature: float) -> Tensor:
    log_p = F.log_softmax(softened_teacher_BC, dim=-1)
    log_q = F.log_softmax(logits_BC.float() / temperature, dim=-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def _needed(temperature: float | None) -> float:
    if temperature is None:
        raise ValueError("the loss `kl` needs a temperature")
    return temperature


def _refused(temperature: float | None) -> None:
    if temperature is not None:
        raise ValueError(f"the loss `mse` has no temperature, got {temperature!r}")


def _kl(temperature: float | None) -> SoftLoss:
    t = _needed(temperature)
    return lambda teacher_logits_BC, logits_BC: soft_target(teacher_logits_BC, logits_BC, t)


def _mse(temperature: float | None) -> SoftLoss:
    _refused(temperature)
    return logit_mse


def _mean_kl(temperature: float | None, weights: Sequence[float]) -> SoftLoss:
    t = _needed(temperature)
    return lambda teacher_logits_BKC, logits_BC: _divergence(
        mean_of_teachers(teacher_logits_BKC, weights, t), logits_BC, t
    )


def _mean_mse(temperature: float | None, weights: Sequence[float]) -> SoftLoss:
    _refused(temperature)
    return lambda teacher_logits_BKC, logits_BC: logit_mse(
        mean_of_teachers(teacher_logits_BKC, weights, 1.0), logits_BC
    )


SOFT_LOSSES: Mapping[str, Callable[[float | None], SoftLoss]] = {"kl": _kl, "mse": _mse}
"""By name in the study file; each is made from the temperature (None where there is none)."""

MEAN_LOSSES: Mapping[str, Callable[[float | None, Sequence[float]], SoftLoss]] = {
    "kl": _mean_kl,
    "mse": _mean_mse,
}
"""The same against several teachers' logits (B, K, C), with the weight of each."""
