"""Contract of every scheme: its stages, its space, and its gradients against the written formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdsearch.core.space import Param, Scalar, suggest_all
from kdsearch.distill.losses import SOFT_LOSSES
from kdsearch.distill.schemes import SCHEMES, build_scheme
from kdsearch.distill.stage import Seen, Setting, Stage, distil_terms

POOLS = [("train",), ("train", "unlabelled")]
Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


class FirstOrLast:
    """Suggests the first or the last value of every dimension."""

    def __init__(self, end: int) -> None:
        self.end = end

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[self.end]

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        return (low, high)[self.end]

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return (low, high)[self.end]


def suggested(name: str) -> list[dict[str, Scalar]]:
    return [suggest_all(SCHEMES[name].SPACE, {}, FirstOrLast(end), name) for end in (0, -1)]


def setting(pools: tuple[str, ...]) -> Setting:
    return Setting(epochs=4, pools=pools, rows_per_epoch=1000)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_knows_its_name_and_every_default_is_legal(name: str) -> None:
    assert name == SCHEMES[name].NAME
    for key, param in SCHEMES[name].SPACE.items():
        assert all(param.accepts(value) for value in param.default.values()), key
        assert not param.architecture, "a scheme does not change the latency"


@pytest.mark.parametrize("pools", POOLS)
@pytest.mark.parametrize("name", SCHEMES)
def test_whatever_the_space_suggests_becomes_stages(name: str, pools: tuple[str, ...]) -> None:
    for params in suggested(name):
        stages = build_scheme(name, params).stages(setting(pools))
        assert sum(stage.epochs for stage in stages) == 4
        assert all(set(stage.pools) <= set(pools) for stage in stages)
        assert stages[-1].scored


@pytest.mark.parametrize("pools", POOLS)
def test_every_scheme_sees_the_same_number_of_rows(pools: tuple[str, ...]) -> None:
    built = {name: build_scheme(name, suggested(name)[0]).stages(setting(pools)) for name in SCHEMES}
    rows = {name: sum(s.epochs * s.rows_per_epoch for s in stages) for name, stages in built.items()}
    assert set(rows.values()) == {4000}


def test_the_control_never_asks_the_teacher_and_sees_labelled_rows_only() -> None:
    (stage,) = build_scheme("none", {}).stages(setting(POOLS[1]))
    assert not stage.needs_teacher and stage.pools == ("train",)


# ---------------------------------------------------------------- gradients of the formulas


def cross_entropy(z: Tensor, labels: Tensor) -> Tensor:
    labelled = labels >= 0
    return -z.log_softmax(-1)[labelled, labels[labelled]].sum() / max(1, int(labelled.sum()))


def kd(v: Tensor, z: Tensor, t: float) -> Tensor:
    p, q = (v / t).softmax(-1), (z / t).softmax(-1)
    return t * t * (p * (p.log() - q.log())).sum() / len(z)


def mse(v: Tensor, z: Tensor) -> Tensor:
    v, z = v - v.mean(-1, keepdim=True), z - z.mean(-1, keepdim=True)
    return 0.5 * ((z - v) ** 2).sum() / z.numel()


FORMULAS: Mapping[str, tuple[str, dict[str, Scalar], Formula]] = {
    "none": ("none", {}, lambda v, z, y: cross_entropy(z, y)),
    "kl": (
        "offline",
        {"loss": "kl", "temperature": 3.0, "lambda": 0.3},
        lambda v, z, y: 0.7 * cross_entropy(z, y) + 0.3 * kd(v, z, 3.0),
    ),
    "mse": (
        "offline",
        {"loss": "mse", "lambda": 0.6},
        lambda v, z, y: 0.4 * cross_entropy(z, y) + 0.6 * mse(v, z),
    ),
    "soft only": (
        "offline",
        {"loss": "kl", "temperature": 8.0, "lambda": 1.0},
        lambda v, z, y: kd(v, z, 8.0),
    ),
}


def test_every_scheme_has_its_formula_here() -> None:
    assert {scheme for scheme, _, _ in FORMULAS.values()} == set(SCHEMES)


def total(stage: Stage, seen: Seen) -> Tensor:
    return torch.stack([term.weight * term.loss(seen) for term in stage.terms]).sum()


@pytest.mark.parametrize("labels", ["all", "some", "no"])
@pytest.mark.parametrize("case", FORMULAS)
def test_gradients_are_those_of_the_formula(case: str, labels: str) -> None:
    scheme, params, formula = FORMULAS[case]
    torch.manual_seed(0)
    v, z = torch.randn(20, 4) * 2, torch.randn(20, 4).requires_grad_()
    y = torch.arange(20) % 4
    y = {"all": y, "some": torch.where(y < 2, y, -1), "no": torch.full_like(y, -1)}[labels]
    (stage,) = build_scheme(scheme, params).stages(setting(POOLS[1]))
    ours, written = total(stage, Seen(z, z, y, v)), formula(v, z, y)
    assert ours.item() == pytest.approx(written.item(), rel=1e-5)
    expected = torch.autograd.grad(written, z, allow_unused=True)[0]
    torch.testing.assert_close(torch.autograd.grad(ours, z)[0], expected, rtol=1e-4, atol=1e-6)


def test_unlabelled_rows_add_nothing_to_the_hard_term() -> None:
    torch.manual_seed(0)
    z, more = torch.randn(8, 3), torch.randn(5, 3)
    y = torch.arange(8) % 3
    (stage,) = build_scheme("none", {}).stages(setting(POOLS[0]))
    both, padded = torch.cat([z, more]), F.pad(y, (0, 5), value=-1)
    assert torch.equal(total(stage, Seen(z, z, y, None)), total(stage, Seen(both, both, padded, None)))


# ---------------------------------------------------------------- what cannot be


def test_a_term_of_weight_zero_is_left_out() -> None:
    at = {lam: distil_terms(loss="mse", temperature=None, lambda_soft=lam) for lam in (0.0, 0.5, 1.0)}
    assert {lam: [t.name for t in terms] for lam, terms in at.items()} == {
        0.0: ["hard"],
        0.5: ["hard", "soft"],
        1.0: ["soft"],
    }


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"loss": "mse", "temperature": 2.0, "lambda": 0.5}, "no temperature"),
        ({"loss": "kl", "lambda": 0.5}, "needs a temperature"),
        ({"loss": "mse", "lambda": 1.5}, "between 0 and 1"),
    ],
)
def test_impossible_parameters_are_refused(params: dict[str, Scalar], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_scheme("offline", params).stages(setting(POOLS[0]))


def test_temperature_exists_only_under_kl() -> None:
    space = SCHEMES["offline"].SPACE
    assert space["temperature"].when == ("loss", "kl")
    assert set(space["loss"].allowed) == set(SOFT_LOSSES)
    assert not space["lambda"].accepts(0.0) and space["lambda"].accepts(1.0)
    assert isinstance(space["temperature"], Param) and not space["temperature"].accepts(0.5)


def test_a_stage_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Stage(name="empty", pools=("train",), terms=(), epochs=1, rows_per_epoch=1)
