"""Gradient routing: every scheme's losses against autograd of its formula, written out here once more.

Letters: v teacher logits, z student logits, y labels (-1: none), sg stops the gradient, T temperature.
The formulas are computed in float64 from first principles, with nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from kdsearch.core.space import Scalar
from kdsearch.distill.schemes import SCHEMES, build_scheme
from kdsearch.distill.stage import (
    HISTORICAL,
    LIVE,
    TEACHER,
    TRAJECTORY,
    Seen,
    Setting,
    Stage,
    Term,
    anchor_signal,
    hidden_signal,
)

B, D, H = 12, 5, 7
WEIGHTS = (3.0, 1.0, 2.0)
SETTING = Setting(
    epochs=4,
    pools=("train", "unlabelled"),
    rows_per_epoch=100,
    anchors=2,
    historical_weights=WEIGHTS,
    student_width=D,
    teacher_width=H,
    seed=5,
)
Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


# ---------------------------------------------------------------- the formulas of the design


def sg(logits: Tensor) -> Tensor:
    return logits.detach()


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    log_q = z - z.exp().sum(-1, keepdim=True).log()
    losses = [-log_q[row, label] for row, label in enumerate(y.tolist()) if label >= 0]
    return torch.stack(losses).sum() / len(losses) if losses else 0.0 * z.sum()


def probabilities(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum(-1, keepdim=True)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q), mean over rows."""
    return (p * (p.log() - q.log())).sum() / len(p)


def kd(v: Tensor, z: Tensor, t: float) -> Tensor:
    return t**2 * divergence(probabilities(v / t), probabilities(z / t))


def mse(v: Tensor, z: Tensor) -> Tensor:
    v, z = v - v.mean(-1, keepdim=True), z - z.mean(-1, keepdim=True)
    return 0.5 * ((z - v) ** 2).sum(-1).mean() / z.shape[-1]


def mean_probabilities(v: Tensor, t: float) -> Tensor:
    shares = [weight / sum(WEIGHTS) for weight in WEIGHTS]
    return sum((s * probabilities(v[:, k] / t) for k, s in enumerate(shares)), torch.zeros(()))


def mutual(mu: float, t: float = 3.0, lam: float = 0.3) -> Formula:
    return lambda v, z, y: (
        (1 - lam) * cross_entropy(z, y)
        + lam * kd(sg(v), z, t)
        + cross_entropy(v, y)
        + mu * lam * kd(v, sg(z), t)
    )


@dataclass(frozen=True)
class Case:
    """A scheme with parameters, the signal its teacher speaks through, and what its stage is to compute."""

    scheme: str
    params: Mapping[str, Scalar]
    formula: Formula
    signal: str = TEACHER
    teachers: int = 0
    stage: int = 0
    then: bool = field(default=False)

    @property
    def built(self) -> Stage:
        return build_scheme(self.scheme, self.params).stages(SETTING)[self.stage]

    @property
    def terms(self) -> tuple[Term, ...]:
        return self.built.then if self.then else self.built.terms


KL: dict[str, Scalar] = {"loss": "kl", "temperature": 3.0, "lambda": 0.3}
MSE: dict[str, Scalar] = {"loss": "mse", "lambda": 0.6}
MUTUAL: dict[str, Scalar] = {"variant": "mutual", "temperature": 3.0, "lambda": 0.3}
PROKT: dict[str, Scalar] = {"variant": "prokt", "temperature": 2.0, "teacher_mix": 0.35}
SUM: dict[str, Scalar] = {"temperature": 3.0, "lambda": 0.3}


def kl_student(v: Tensor, z: Tensor, y: Tensor) -> Tensor:
    return 0.7 * cross_entropy(z, y) + 0.3 * kd(sg(v), z, 3.0)


def mse_student(v: Tensor, z: Tensor, y: Tensor) -> Tensor:
    return 0.4 * cross_entropy(z, y) + 0.6 * mse(sg(v), z)


def mean_kl(v: Tensor, z: Tensor, y: Tensor) -> Tensor:
    soft = 9.0 * divergence(sg(mean_probabilities(v, 3.0)), probabilities(z / 3.0))
    return 0.7 * cross_entropy(z, y) + 0.3 * soft


def mean_mse(v: Tensor, z: Tensor, y: Tensor) -> Tensor:
    return 0.4 * cross_entropy(z, y) + 0.6 * mse(sg(mean_probabilities(v, 1.0).log()), z)


def summed(v: Tensor, z: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(v, y) + 0.7 * cross_entropy(z, y) + 0.3 * kd(v, z, 3.0)


CASES: dict[str, Case] = {
    "none": Case("none", {}, lambda v, z, y: cross_entropy(z, y)),
    "offline, kl": Case("offline", KL, kl_student),
    "offline, mse": Case("offline", MSE, mse_student),
    "offline, soft only": Case(
        "offline",
        {"loss": "kl", "temperature": 8.0, "lambda": 1.0},
        lambda v, z, y: kd(sg(v), z, 8.0),
    ),
    "offline, hard only": Case("offline", {**KL, "lambda": 0.0}, lambda v, z, y: cross_entropy(z, y)),
    "isolated, kl": Case("joint_isolated", KL, kl_student, TRAJECTORY),
    "isolated, mse": Case("joint_isolated", MSE, mse_student, TRAJECTORY),
    "mutual": Case("joint_mutual", {**MUTUAL, "mu": 0.4}, mutual(0.4), LIVE),
    "mutual, mu 0": Case("joint_mutual", {**MUTUAL, "mu": 0.0}, mutual(0.0), LIVE),
    "mutual, mu 1": Case("joint_mutual", {**MUTUAL, "mu": 1.0}, mutual(1.0), LIVE),
    "mutual, lambda 1": Case(
        "joint_mutual", {**MUTUAL, "lambda": 1.0, "mu": 0.4}, mutual(0.4, lam=1.0), LIVE
    ),
    "prokt, teacher": Case(
        "joint_mutual",
        PROKT,
        lambda v, z, y: 0.65 * cross_entropy(v, y) + 0.35 * kd(sg(z), v, 2.0),
        LIVE,
    ),
    "prokt, student": Case("joint_mutual", PROKT, lambda v, z, y: kd(sg(v), z, 2.0), LIVE, then=True),
    "sum, one rate": Case("joint_sum", {**SUM, "learning_rate": 1e-3}, summed, LIVE),
    "sum, own rates": Case("joint_sum", {**SUM, "rates": "own", "clip": "own"}, summed, LIVE),
    "several, kl": Case("multi_teacher", KL, mean_kl, HISTORICAL, teachers=3),
    "several, mse": Case("multi_teacher", MSE, mean_mse, HISTORICAL, teachers=3),
    "hint, logits": Case("hint", {**KL, "hint_epochs": 1, "layer": 2}, kl_student, stage=1),
    "route, first": Case("route", KL, kl_student, anchor_signal(1)),
    "route, last": Case("route", MSE, mse_student, anchor_signal(2), stage=1),
}


# ---------------------------------------------------------------- what is compared


@dataclass(frozen=True)
class Batch:
    v: Tensor
    z: Tensor
    y: Tensor

    def gradients(self, loss: Tensor) -> list[Tensor | None]:
        """Of teacher and student logits; None where no path leads there."""
        return list(torch.autograd.grad(loss, (self.v, self.z), allow_unused=True, retain_graph=True))


def labels_of(kind: str, classes: int) -> Tensor:
    y = torch.arange(B) % classes
    return {"all": y, "some": torch.where(y % 2 == 0, y, -1), "no": torch.full_like(y, -1)}[kind]


def batch_of(case: Case, *, classes: int, seed: int = 0, labels: str = "some") -> Batch:
    generator = torch.Generator().manual_seed(seed)
    between = (case.teachers,) if case.teachers else ()
    v = 2 * torch.randn(B, *between, classes, generator=generator)
    z = 2 * torch.randn(B, classes, generator=generator)
    return Batch(v.requires_grad_(), z.requires_grad_(), labels_of(labels, classes))


def total(terms: tuple[Term, ...], batch: Batch, signal: str) -> Tensor:
    seen = Seen(batch.z, torch.zeros(len(batch.z), D), batch.y, {signal: batch.v})
    return torch.stack([term.weight * term.loss(seen) for term in terms]).sum()


def assert_same(ours: Tensor | None, written: Tensor | None) -> None:
    if written is None:
        assert ours is None, "a gradient where there must be none"
    else:
        torch.testing.assert_close(ours, written, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("labels", ["all", "some", "no"])
@pytest.mark.parametrize("classes", [2, 15])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_gradients_are_those_of_the_formula(case: Case, classes: int, labels: str) -> None:
    for seed in range(3):
        batch = batch_of(case, classes=classes, seed=seed, labels=labels)
        ours = total(case.terms, batch, case.signal)
        written = case.formula(batch.v.double(), batch.z.double(), batch.y)
        assert ours.item() == pytest.approx(written.item(), rel=1e-4, abs=1e-6)
        for found, expected in zip(batch.gradients(ours), batch.gradients(written), strict=True):
            assert_same(found, expected)


def test_every_scheme_and_turn_has_its_formula_here() -> None:
    assert {case.scheme for case in CASES.values()} == set(SCHEMES)
    variants = {str(case.params.get("variant")) for case in CASES.values()}
    assert variants - {"None"} == set(SCHEMES["joint_mutual"].SPACE["variant"].allowed)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_terms_read_the_signals_that_they_say(case: Case) -> None:
    assert {name for term in case.terms for name in term.needs} <= {case.signal}
    assert len({term.name for term in case.terms}) == len(case.terms)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_who_feels_what(case: Case) -> None:
    """A teacher feels something where it is live, and in its own turn of ProKT alone."""
    batch = batch_of(case, classes=4)
    teacher, student = batch.gradients(total(case.terms, batch, case.signal))
    trains_teacher = case.signal == LIVE and not case.then
    assert (teacher is not None and bool(teacher.any())) == trains_teacher
    trains_student = not (case.params.get("variant") == "prokt" and not case.then)
    assert (student is not None and bool(student.any())) == trains_student


@pytest.mark.parametrize("classes", [2, 15])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_classes_in_another_order_give_the_same_loss_and_gradients_in_that_order(
    case: Case, classes: int
) -> None:
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(1))
    one = batch_of(case, classes=classes)
    position = torch.argsort(order)
    y = torch.where(one.y >= 0, position[one.y.clamp(min=0)], -1)
    v, z = (x.detach()[..., order].requires_grad_() for x in (one.v, one.z))
    two = Batch(v, z, y)
    losses = [total(case.terms, batch, case.signal) for batch in (one, two)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for a, b in zip(one.gradients(losses[0]), two.gradients(losses[1]), strict=True):
        assert_same(b, None if a is None else a[..., order])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_unlabelled_rows_add_nothing_to_any_hard_term(case: Case) -> None:
    hard = tuple(term for term in case.terms if term.name in ("hard", "teacher_hard"))
    if not hard:
        assert case.params.get("lambda", 1.0) == 1.0, "a scheme without hard labels"
        return
    both = batch_of(case, classes=3, labels="some")
    labelled = both.y >= 0
    v, z = (x.detach()[labelled].requires_grad_() for x in (both.v, both.z))
    alone = Batch(v, z, both.y[labelled])
    losses = [total(hard, batch, case.signal) for batch in (both, alone)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for wide, narrow in zip(both.gradients(losses[0]), alone.gradients(losses[1]), strict=True):
        assert (wide is None) == (narrow is None)
        if wide is not None and narrow is not None:
            assert not wide[~labelled].any()
            torch.testing.assert_close(wide[labelled], narrow)


# ---------------------------------------------------------------- schemes that are one another's limits


def exactly(one: str, other: str, *, then: Batch) -> None:
    """Both cases give the same number and the same student gradient, to the last bit."""
    a, b = (total(CASES[name].terms, then, CASES[name].signal) for name in (one, other))
    assert torch.equal(a, b)
    assert torch.equal(*(torch.autograd.grad(x, then.z)[0] for x in (a, b)))


@pytest.mark.parametrize("classes", [2, 15])
def test_no_weight_on_the_soft_term_is_no_distillation_bit_for_bit(classes: int) -> None:
    exactly("offline, hard only", "none", then=batch_of(CASES["none"], classes=classes))


@pytest.mark.parametrize("classes", [2, 15])
def test_summed_losses_have_the_gradients_of_mutual_ones_at_mu_1(classes: int) -> None:
    cases = [CASES[name] for name in ("mutual, mu 1", "sum, one rate")]
    batch = batch_of(cases[0], classes=classes)
    mutual_ones, summed_ones = (batch.gradients(total(case.terms, batch, LIVE)) for case in cases)
    for a, b in zip(mutual_ones, summed_ones, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_mutual_at_mu_0_is_isolated_beside_a_teacher_of_its_own() -> None:
    case, isolated = CASES["mutual, mu 0"], CASES["isolated, kl"]
    batch = batch_of(case, classes=4)
    teacher, student = batch.gradients(total(case.terms, batch, LIVE))
    _, alone = batch.gradients(total(isolated.terms, batch, TRAJECTORY))
    expected, _ = batch.gradients(cross_entropy(batch.v.double(), batch.y))
    assert torch.equal(student, alone)  # type: ignore[arg-type]
    assert_same(teacher, expected)


@pytest.mark.parametrize("params", [KL, {**KL, "temperature": 3.7}, MSE], ids=["T=3", "T=3.7", "mse"])
@pytest.mark.parametrize("classes", [2, 15])
def test_one_historical_teacher_is_offline_to_the_last_bit(
    params: Mapping[str, Scalar], classes: int
) -> None:
    for seed in range(5):
        batch = batch_of(CASES["none"], classes=classes, seed=seed)
        one = Setting(epochs=1, pools=("train",), rows_per_epoch=1, historical_weights=(0.3,))
        (several,) = build_scheme("multi_teacher", params).stages(one)
        (offline,) = build_scheme("offline", params).stages(one)
        seen = [Batch(batch.v.unsqueeze(1), batch.z, batch.y), batch]
        a = total(several.terms, seen[0], HISTORICAL)
        b = total(offline.terms, seen[1], TEACHER)
        assert torch.equal(a, b)
        assert torch.equal(*(torch.autograd.grad(x, batch.z)[0] for x in (a, b)))


# ---------------------------------------------------------------- hints


def hint_term(*, seed: int = 5, layer: int = 2) -> Term:
    setting = Setting(
        epochs=3, pools=("train",), rows_per_epoch=10, student_width=D, teacher_width=H, seed=seed
    )
    hints, _ = build_scheme("hint", {**KL, "hint_epochs": 1, "layer": layer}).stages(setting)
    (term,) = hints.terms
    return term


def test_hint_gradients_are_those_of_the_formula_and_the_teacher_feels_none() -> None:
    term, generator = hint_term(), torch.Generator().manual_seed(0)
    student = torch.randn(B, D, generator=generator).requires_grad_()
    teacher = torch.randn(B, H, generator=generator).requires_grad_()
    assert isinstance(term.learned, torch.nn.Linear)
    weight, bias = term.learned.weight, term.learned.bias
    nobody = torch.full((B,), -1)
    ours = term.loss(Seen(torch.zeros(B, 2), student, nobody, {hidden_signal(2): teacher}))
    predicted = student.double() @ weight.double().T + bias.double()
    written = ((predicted - teacher.detach().double()) ** 2).sum() / (B * H)
    assert ours.item() == pytest.approx(written.item(), rel=1e-5)
    leaves = (teacher, student, weight, bias)
    for found, expected in zip(
        *(torch.autograd.grad(x, leaves, allow_unused=True) for x in (ours, written)), strict=True
    ):
        assert_same(found, expected)


def test_hints_of_half_precision_are_compared_in_single() -> None:
    term = hint_term()
    student, teacher = torch.full((2, D), 3.0), torch.full((2, H), 900.0)
    seen = Seen(torch.zeros(2, 2), student, torch.full((2,), -1), {hidden_signal(2): teacher.half()})
    loss = term.loss(seen)
    assert loss.dtype == torch.float32 and loss.item() > 1e5, "beyond what float16 can hold"


def test_the_regressor_depends_on_the_seed_alone_and_moves_no_generator() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = hint_term()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    again, other = hint_term(), hint_term(seed=6)
    weights = [t.learned.weight for t in (one, again, other) if isinstance(t.learned, torch.nn.Linear)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_term_reads_the_layer_that_it_was_asked_for() -> None:
    assert hint_term(layer=4).needs == (hidden_signal(4),)
