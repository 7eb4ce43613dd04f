"""The losses by identities: scale, limits, symmetries, gradients against the written formula."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdsearch.distill.losses import SOFT_LOSSES, hard_label, logit_mse, soft_target


def logits(rows: int = 64, classes: int = 5, *, seed: int = 0) -> Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 2


def number(scalar: Tensor) -> float:
    return float(scalar.detach())


def gradient(loss: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(loss, z)[0]


def soft_gradient_norm(temperature: float, *, classes: int) -> float:
    v, z = logits(classes=classes, seed=1), logits(classes=classes, seed=2).requires_grad_()
    return number(gradient(soft_target(v, z, temperature), z).norm())


@pytest.mark.parametrize("classes", [2, 15])
def test_temperature_does_not_change_the_size_of_the_soft_gradient(classes: int) -> None:
    at_16, at_64 = (soft_gradient_norm(t, classes=classes) for t in (16.0, 64.0))
    assert at_16 == pytest.approx(at_64, rel=0.1)
    assert soft_gradient_norm(2.0, classes=classes) == pytest.approx(at_64, rel=0.8)


def test_soft_target_is_the_written_formula() -> None:
    v, z, t = logits(seed=1).double(), logits(seed=2).double(), 3.0
    p, q = (v / t).softmax(-1), (z / t).softmax(-1)
    by_hand = t * t * (p * (p / q).log()).sum(-1).mean()
    assert number(soft_target(v, z, t)) == pytest.approx(number(by_hand), rel=1e-5)


def test_soft_gradient_is_temperature_times_the_difference_of_probabilities_over_rows() -> None:
    v, z, t = logits(seed=1), logits(seed=2).requires_grad_(), 4.0
    expected = t * ((z / t).softmax(-1) - (v / t).softmax(-1)) / len(z)
    torch.testing.assert_close(gradient(soft_target(v, z, t), z), expected.detach())


@pytest.mark.parametrize("classes", [2, 15])
def test_mse_is_the_limit_of_soft_target_at_infinite_temperature(classes: int) -> None:
    v, z = logits(classes=classes, seed=1), logits(classes=classes, seed=2).requires_grad_()
    hot, mse = soft_target(v, z, 300.0), logit_mse(v, z)
    assert number(hot) == pytest.approx(number(mse), rel=0.02)
    torch.testing.assert_close(gradient(hot, z), gradient(mse, z), rtol=0.05, atol=2e-4)


def test_mse_is_the_written_formula() -> None:
    v, z = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[5.0, 5.0], [2.0, -2.0]])
    centred = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    assert number(logit_mse(v, z)) == pytest.approx(number(0.5 * (centred**2).sum(1).mean() / 2))


@pytest.mark.parametrize("kind", SOFT_LOSSES)
def test_soft_losses_vanish_for_equal_logits_whatever_constant_is_added(kind: str) -> None:
    loss = SOFT_LOSSES[kind](2.0 if kind == "kl" else None)
    v = logits()
    z = (v + torch.randn(len(v), 1)).requires_grad_()
    assert number(loss(v, z)) == pytest.approx(0, abs=1e-6)
    assert number(gradient(loss(v, z), z).norm()) == pytest.approx(0, abs=1e-6)
    assert number(loss(v, logits(seed=9))) > 0.1


@pytest.mark.parametrize("kind", SOFT_LOSSES)
def test_soft_losses_are_means_over_rows_and_know_no_order_of_classes(kind: str) -> None:
    loss = SOFT_LOSSES[kind](2.0 if kind == "kl" else None)
    v, z = logits(seed=1), logits(seed=2)
    once = number(loss(v, z))
    assert number(loss(v.repeat(3, 1), z.repeat(3, 1))) == pytest.approx(once, rel=1e-5)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert number(loss(v[:, order], z[:, order])) == pytest.approx(once, rel=1e-5)


@pytest.mark.parametrize("kind", SOFT_LOSSES)
def test_soft_losses_do_not_underflow_in_half_precision(kind: str) -> None:
    loss = SOFT_LOSSES[kind](1.0 if kind == "kl" else None)
    v, z = torch.tensor([[30.0, -30.0]]).half(), torch.tensor([[-30.0, 30.0]]).bfloat16()
    value = loss(v, z)
    assert value.dtype == torch.float32
    assert number(value) == pytest.approx(60.0 if kind == "kl" else 0.5 * 60**2, rel=1e-3)


def test_hard_label_is_cross_entropy_over_the_labelled_rows_alone() -> None:
    z = logits().requires_grad_()
    labels = torch.arange(64) % 5
    labels[::2] = -1
    expected = F.cross_entropy(z[1::2], labels[1::2])
    assert number(hard_label(z, labels)) == pytest.approx(number(expected), rel=1e-6)
    rows = gradient(hard_label(z, labels), z).norm(dim=1)
    assert (rows[::2] == 0).all() and (rows[1::2] > 0).all()


def test_a_batch_without_any_label_gives_no_loss_and_no_gradient() -> None:
    z = logits().requires_grad_()
    loss = hard_label(z, torch.full((64,), -1))
    assert number(loss) == 0.0
    assert not gradient(loss, z).any()


def test_hard_label_of_a_uniform_guess_is_log_of_the_classes() -> None:
    loss = hard_label(torch.zeros(7, 15), torch.arange(7))
    assert number(loss) == pytest.approx(math.log(15))


def test_temperature_belongs_to_kl_alone() -> None:
    with pytest.raises(ValueError, match="no temperature"):
        SOFT_LOSSES["mse"](2.0)
    with pytest.raises(ValueError, match="needs a temperature"):
        SOFT_LOSSES["kl"](None)
