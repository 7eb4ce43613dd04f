"""The losses by identities: scale, limits, symmetries, gradients against the written formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdsearch.distill.losses import (
    MEAN_LOSSES,
    SOFT_LOSSES,
    SoftLoss,
    hard_label,
    hint,
    logit_mse,
    mean_of_teachers,
    soft_target,
)


def logits(rows: int = 64, classes: int = 5, *, seed: int = 0) -> Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 2


def number(scalar: Tensor) -> float:
    return float(scalar.detach())


def gradient(loss: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(loss, z)[0]


@pytest.mark.parametrize("temperature", [16.0, 64.0])
@pytest.mark.parametrize("classes", [2, 15])
def test_temperature_does_not_change_the_size_of_the_soft_gradient(classes: int, temperature: float) -> None:
    """Neither of the student's nor, where the teacher learns from the soft term too, of the teacher's."""
    for seed in range(5):
        v, z = (logits(classes=classes, seed=2 * seed + i).requires_grad_() for i in (0, 1))
        for leaf in (v, z):
            limit = gradient(logit_mse(v, z), leaf).norm()
            found = gradient(soft_target(v, z, temperature), leaf).norm()
            assert number(found) == pytest.approx(number(limit), rel=0.1)


def test_low_temperatures_give_gradients_of_the_same_order() -> None:
    v, z = logits(seed=1), logits(seed=2).requires_grad_()
    limit = number(gradient(logit_mse(v, z), z).norm())
    for temperature in (1.0, 2.0, 4.0, 8.0):
        found = number(gradient(soft_target(v, z, temperature), z).norm())
        assert 0.3 < found / limit < 3, temperature


@pytest.mark.parametrize("classes", [2, 15])
def test_gradients_into_both_arguments_are_those_of_the_written_formula(classes: int) -> None:
    v, z = (logits(classes=classes, seed=seed).requires_grad_() for seed in (1, 2))
    t = 3.0
    p, q = (v.double() / t).softmax(-1), (z.double() / t).softmax(-1)
    written = t * t * (p * (p.log() - q.log())).sum() / len(v)
    for leaf in (v, z):
        expected = torch.autograd.grad(written, leaf, retain_graph=True)[0]
        torch.testing.assert_close(gradient(soft_target(v, z, t), leaf), expected, rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
@pytest.mark.parametrize("classes", [2, 15])
def test_label_smoothing_is_that_of_torch_over_the_labelled_rows(classes: int, smoothing: float) -> None:
    z, labels = logits(classes=classes).requires_grad_(), torch.arange(64) % classes
    everywhere = F.cross_entropy(z, labels, label_smoothing=smoothing)
    assert number(hard_label(z, labels, smoothing)) == pytest.approx(number(everywhere), rel=1e-6)
    some = torch.where(torch.arange(64) % 3 == 0, -1, labels)
    loss = hard_label(z, some, smoothing)
    by_hand = F.cross_entropy(z[some >= 0], some[some >= 0], label_smoothing=smoothing)
    assert number(loss) == pytest.approx(number(by_hand), rel=1e-6)
    assert not gradient(loss, z)[some < 0].any()


def test_label_smoothing_is_the_written_formula() -> None:
    z, labels, share = logits(), torch.arange(64) % 5, 0.2
    target = share / 5 + (1 - share) * F.one_hot(labels, 5)
    by_hand = -(target * z.double().log_softmax(-1)).sum(-1).mean()
    assert number(hard_label(z, labels, share)) == pytest.approx(number(by_hand), rel=1e-6)


def test_no_smoothing_is_no_smoothing_bit_for_bit() -> None:
    z, labels = logits().requires_grad_(), torch.arange(64) % 5
    labels[::3] = -1
    plain = F.cross_entropy(z, labels, ignore_index=-1, reduction="sum") / (labels >= 0).sum()
    assert torch.equal(hard_label(z, labels, 0.0), plain)
    assert torch.equal(hard_label(z, labels), plain)
    assert torch.equal(gradient(hard_label(z, labels, 0.0), z), gradient(plain, z))


def test_smoothing_an_unlabelled_batch_gives_nothing() -> None:
    z = logits().requires_grad_()
    loss = hard_label(z, torch.full((64,), -1), 0.1)
    assert number(loss) == 0.0
    assert not gradient(loss, z).any()


# ---------------------------------------------------------------- several teachers


def teachers(num: int, *, classes: int = 5, seed: int = 0) -> Tensor:
    return torch.stack([logits(classes=classes, seed=100 * seed + k) for k in range(num)], dim=1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 15])
def test_the_mean_of_teachers_is_one_of_probabilities(classes: int, temperature: float) -> None:
    v_BKC, weights = teachers(3, classes=classes), (3.0, 1.0, 2.0)
    found = mean_of_teachers(v_BKC, weights, temperature).softmax(-1).double()
    each = (v_BKC.double() / temperature).softmax(-1)
    expected = (3 * each[:, 0] + each[:, 1] + 2 * each[:, 2]) / 6
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_sure_teacher_is_not_blunted_as_in_a_mean_of_logits() -> None:
    v_BKC = torch.tensor([[[8.0, 0.0], [0.0, 0.5]]])
    share = mean_of_teachers(v_BKC, (1.0, 1.0), 1.0).softmax(-1)[0, 0]
    of_logits = v_BKC.mean(1).softmax(-1)[0, 0]
    assert number(share) == pytest.approx(0.5 * (1 / (1 + math.exp(-8)) + 1 / (1 + math.exp(0.5))))
    assert number(of_logits) == pytest.approx(1 / (1 + math.exp(-3.75)))


@pytest.mark.parametrize("temperature", [1.0, 3.7])
def test_one_teacher_is_its_own_mean_to_the_last_bit(temperature: float) -> None:
    v = logits(classes=15)
    assert torch.equal(mean_of_teachers(v.unsqueeze(1), (0.3,), temperature), v / temperature)


@pytest.mark.parametrize("kind", MEAN_LOSSES)
def test_only_the_ratio_of_weights_counts_and_their_order_follows_the_teachers(kind: str) -> None:
    t = 2.0 if kind == "kl" else None
    v_BKC, z = teachers(3), logits(seed=7)
    once = number(MEAN_LOSSES[kind](t, (3.0, 1.0, 2.0))(v_BKC, z))
    assert number(MEAN_LOSSES[kind](t, (30.0, 10.0, 20.0))(v_BKC, z)) == pytest.approx(once, rel=1e-5)
    turned = MEAN_LOSSES[kind](t, (2.0, 3.0, 1.0))(v_BKC[:, [2, 0, 1]], z)
    assert number(turned) == pytest.approx(once, rel=1e-5)
    assert number(MEAN_LOSSES[kind](t, (2.0, 3.0, 1.0))(v_BKC, z)) != pytest.approx(once, rel=1e-2)


@pytest.mark.parametrize("kind", MEAN_LOSSES)
def test_agreeing_teachers_are_like_one(kind: str) -> None:
    t = 2.0 if kind == "kl" else None
    v, z = logits(seed=1), logits(seed=2)
    several = MEAN_LOSSES[kind](t, (1.0, 4.0))(torch.stack([v, v + 3.0], dim=1), z)
    assert number(several) == pytest.approx(number(SOFT_LOSSES[kind](t)(v, z)), rel=1e-4)


def test_at_infinite_temperature_the_mean_is_one_of_logits_after_all() -> None:
    v_BKC, z = teachers(3), logits(seed=7).requires_grad_()
    hot = MEAN_LOSSES["kl"](300.0, (1.0, 1.0, 1.0))(v_BKC, z)
    assert number(hot) == pytest.approx(number(logit_mse(v_BKC.mean(1), z)), rel=0.02)


@pytest.mark.parametrize("kind", MEAN_LOSSES)
def test_very_sure_teachers_give_finite_losses_and_gradients(kind: str) -> None:
    v_BKC = torch.tensor([[[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]]])
    z = torch.zeros(1, 3).requires_grad_()
    loss = MEAN_LOSSES[kind](1.0 if kind == "kl" else None, (1.0, 1.0))(v_BKC, z)
    assert math.isfinite(number(loss)) and gradient(loss, z).isfinite().all()


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3), (4, 3, 3)])
def test_weights_must_be_as_many_as_teachers(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 weights"):
        mean_of_teachers(torch.zeros(shape), (1.0, 1.0), 1.0)


# ---------------------------------------------------------------- hints, and what cannot be


def test_a_hint_is_the_mean_square_over_rows_and_dimensions() -> None:
    predicted, hidden = logits(4, 7, seed=1), logits(4, 7, seed=2)
    assert number(hint(predicted, hidden)) == pytest.approx(
        number(((predicted - hidden) ** 2).sum() / 28), rel=1e-6
    )
    assert hint(predicted.bfloat16(), hidden.half()).dtype == torch.float32


@pytest.mark.parametrize("losses", [SOFT_LOSSES, MEAN_LOSSES], ids=["one teacher", "several"])
def test_temperature_belongs_to_kl_alone(losses: Mapping[str, Callable[..., SoftLoss]]) -> None:
    more = () if losses is SOFT_LOSSES else ((1.0,),)
    with pytest.raises(ValueError, match="no temperature"):
        losses["mse"](2.0, *more)
    with pytest.raises(ValueError, match="needs a temperature"):
        losses["kl"](None, *more)
