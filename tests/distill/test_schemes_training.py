"""Schemes with a frozen teacher in the training loop: which equal one another, hints, resuming."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import (
    HISTORICAL,
    TEACHER,
    TRAJECTORY,
    Setting,
    Stage,
    anchor_signal,
    hidden_signal,
)

KL = {"loss": "kl", "temperature": 3.7, "lambda": 0.4}
MSE = {"loss": "mse", "lambda": 0.4}
WIDTH, TEACHER_WIDTH, LAYER = 8, 5, 2


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def bench(problem_with_unlabelled: Any) -> Any:
    """Two pools, and every signal that a frozen teacher gives."""
    problem, rng = problem_with_unlabelled, np.random.default_rng(11)
    logits = problem.signals[TEACHER]
    other = {name: rng.normal(size=values.shape).astype(np.float32) for name, values in logits.items()}
    problem.signals |= {
        HISTORICAL: {name: np.stack([values, other[name]], axis=1) for name, values in logits.items()},
        anchor_signal(1): other,
        anchor_signal(2): logits,
        hidden_signal(LAYER): {
            name: rng.normal(size=(len(values), TEACHER_WIDTH)).astype(np.float16)
            for name, values in logits.items()
        },
        TRAJECTORY: {"train": np.stack([other["train"], logits["train"]])},
    }
    return problem


def setting_of(bench: Any, **changed: Any) -> Setting:
    setting: Setting = replace(
        bench.setting,
        anchors=2,
        historical_weights=(2.0, 1.0),
        student_width=WIDTH,
        teacher_width=TEACHER_WIDTH,
        seed=3,
    )
    return replace(setting, **changed)


def stages(bench: Any, name: str, params: dict[str, Any], **changed: Any) -> tuple[Stage, ...]:
    return build_scheme(name, params).stages(setting_of(bench, **changed))


def trained(bench: Any, make_student: Any, run: tuple[Stage, ...], **how: Any) -> dict[str, Tensor]:
    """The weights after the last epoch."""
    student = make_student(seed=1)
    bench.fit(student, run, **how)
    return {key: value.clone() for key, value in student.state_dict().items()}


@pytest.mark.parametrize("params", [KL, MSE], ids=["kl", "mse"])
def test_one_anchor_makes_a_route_equal_offline(
    bench: Any, make_student: Any, params: dict[str, Any]
) -> None:
    bench.signals[anchor_signal(1)] = bench.signals[TEACHER]
    route, offline = stages(bench, "route", params, anchors=1), stages(bench, "offline", params)
    assert same(trained(bench, make_student, route), trained(bench, make_student, offline))


@pytest.mark.parametrize("params", [KL, MSE], ids=["kl", "mse"])
def test_one_historical_teacher_equals_offline(bench: Any, make_student: Any, params: dict[str, Any]) -> None:
    for name, values in bench.signals[TEACHER].items():
        bench.signals[HISTORICAL][name] = values[:, None]
    one = stages(bench, "multi_teacher", params, historical_weights=(0.3,))
    assert same(
        trained(bench, make_student, one),
        trained(bench, make_student, stages(bench, "offline", params)),
    )


def test_the_schemes_differ_otherwise(bench: Any, make_student: Any) -> None:
    hint = {**KL, "hint_epochs": 1, "layer": LAYER}
    runs = [stages(bench, n, p) for n, p in (("offline", KL), ("multi_teacher", KL), ("route", KL))]
    runs += [stages(bench, "hint", hint), stages(bench, "none", {}), stages(bench, "joint_isolated", KL)]
    weights = [trained(bench, make_student, run)["classifier.weight"] for run in runs]
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


@pytest.mark.parametrize("name", ["offline", "multi_teacher", "route", "joint_isolated"])
def test_without_a_soft_term_on_the_labelled_pool_every_scheme_is_none(
    bench: Any, make_student: Any, name: str
) -> None:
    pools = {} if name == "joint_isolated" else {"pools": "train"}
    run = stages(bench, name, {**KL, "lambda": 0.0, **pools})
    control = stages(bench, "none", {})
    assert same(trained(bench, make_student, run), trained(bench, make_student, control))


def test_hints_train_what_they_reach_and_leave_the_classifier_alone(bench: Any, make_student: Any) -> None:
    hints, logits = stages(bench, "hint", {**KL, "hint_epochs": 2, "layer": LAYER})
    (term,) = hints.terms
    assert isinstance(term.learned, torch.nn.Linear)
    regressor = term.learned.weight.detach().clone()
    student, fresh = make_student(seed=1), make_student(seed=1).state_dict()
    seen: list[dict[str, Tensor]] = []

    def keep(report: Any, checkpoint: bytes) -> None:
        seen.append({key: value.clone() for key, value in student.state_dict().items()})
        bench.keep(report, checkpoint)

    report = bench.fit(student, (hints, logits), on_epoch=keep)
    for during in seen[:2]:
        assert torch.equal(during["classifier.weight"], fresh["classifier.weight"])
        assert not torch.equal(during["embedding.weight"], fresh["embedding.weight"])
    assert not torch.equal(seen[2]["classifier.weight"], fresh["classifier.weight"])
    assert not torch.equal(term.learned.weight, regressor)
    assert [r.scores is None for r in bench.reports] == [True, True, False]
    losses = [r.losses["hint"] for r in bench.reports[:2]]
    assert losses[1] < losses[0], "the student comes nearer to the teacher's layer"
    assert report.best_epoch == 3


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("multi_teacher", KL),
        ("hint", {**KL, "hint_epochs": 1, "layer": LAYER}),
        ("hint", {**MSE, "hint_epochs": 2, "layer": LAYER}),
        ("route", KL),
        ("joint_isolated", KL),
    ],
)
def test_resumed_equals_uninterrupted(
    bench: Any, make_student: Any, name: str, params: dict[str, Any], after: int
) -> None:
    whole = trained(bench, make_student, stages(bench, name, params))
    checkpoint = bench.checkpoints[after - 1]
    # The stages are made again, as another process would.
    again = trained(bench, make_student, stages(bench, name, params), resume=checkpoint)
    assert same(again, whole)
