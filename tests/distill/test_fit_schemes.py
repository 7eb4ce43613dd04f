"""Every registered scheme through the loop: repeatable, resumable, and the identities between schemes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from kdsearch.core.specteacher import JointSpec
from kdsearch.distill import checkpoint
from kdsearch.distill.fit import FitReport
from kdsearch.distill.live import LiveTeacher
from kdsearch.distill.schemes import SCHEMES, build_scheme
from kdsearch.distill.stage import (
    HISTORICAL,
    TEACHER,
    TRAJECTORY,
    Setting,
    Stage,
    anchor_signal,
    hidden_signal,
)
from kdsearch.distill.trajectory import Trajectory, record_trajectory
from kdsearch.students.base import InputShape
from kdsearch.students.building import build_student
from kdsearch.teachers.source import load_encoder_for

SOFT: dict[str, Any] = {"loss": "kl", "temperature": 2.0, "lambda": 0.6}
WARM: dict[str, Any] = {"temperature": 2.0, "lambda": 0.6}
JOINT = JointSpec(epochs=2, batch_size=16, learning_rate=2e-2)
WIDTH = 6

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "offline": ("offline", {"loss": "mse", "lambda": 0.6}),
    "offline on one pool": ("offline", {**SOFT, "pools": "train"}),
    "joint_isolated": ("joint_isolated", SOFT),
    "joint_mutual": ("joint_mutual", {**WARM, "variant": "mutual", "mu": 0.5}),
    "prokt": ("joint_mutual", {"temperature": 2.0, "variant": "prokt", "teacher_mix": 0.3}),
    "joint_sum": ("joint_sum", {**WARM, "clip": "global", "rates": "shared", "learning_rate": 1e-2}),
    "joint_sum, own": ("joint_sum", {**WARM, "clip": "own", "rates": "own"}),
    "multi_teacher": ("multi_teacher", SOFT),
    "hint": ("hint", {**SOFT, "hint_epochs": 1, "layer": 2}),
    "route": ("route", SOFT),
}
JOINED = ("joint_mutual", "prokt", "joint_sum", "joint_sum, own")


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@dataclass
class Trial:
    """What a trial left behind."""

    report: FitReport
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]


@dataclass
class Study:
    """A problem with every signal, and kinds of student and teacher."""

    problem: Any
    student: Any
    teacher: Any
    width: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(8)
        shapes = {
            HISTORICAL: (2, 3),
            anchor_signal(1): (3,),
            anchor_signal(2): (3,),
            hidden_signal(2): (WIDTH,),
        }
        for name, shape in shapes.items():
            self.problem.signals[name] = {
                pool: rng.normal(size=(len(rows), *shape)).astype(np.float32) * 2
                for pool, rows in self.problem.pools.items()
            }

    @property
    def setting(self) -> Setting:
        return replace(
            self.problem.setting,
            anchors=2,
            historical_weights=(1.0, 2.0),
            student_width=self.width,
            teacher_width=WIDTH,
            joint=JOINT,
            seed=3,
        )

    def live(self, seed: int) -> LiveTeacher:
        pools = {**self.problem.pools, "validation": self.problem.validation}
        return LiveTeacher(module=self.teacher(seed), pools=pools, pad_id=0)

    def stages(self, scheme: str, params: dict[str, Any], **setting: Any) -> tuple[Stage, ...]:
        return build_scheme(scheme, params).stages(replace(self.setting, **setting))

    def run(
        self, stages: tuple[Stage, ...], *, seeds: tuple[int, int] = (0, 7), resume: bytes | None = None
    ) -> Trial:
        student, live = self.student(seeds[0]), self.live(seeds[1])
        report = self.problem.fit(student, stages, live=live, resume=resume)
        return Trial(report, checkpoint.state_of(student), checkpoint.state_of(live.module))

    def record(self, **changed: Any) -> Trajectory:
        arguments: dict[str, Any] = {
            "joint": JOINT,
            "validation": self.problem.validation,
            "settings": self.problem.settings,
            "on_epoch": lambda *_: None,
            "resume": None,
            "breathe": lambda: None,
            "should_stop": lambda: False,
        }
        found = record_trajectory(self.teacher(7), self.problem.pools["train"], **{**arguments, **changed})
        assert found is not None
        self.problem.signals[TRAJECTORY] = {"train": found.logits_ENC}
        return found


@pytest.fixture
def study(problem: Any, make_student: Any) -> Study:
    return Study(problem, lambda seed: make_student(seed=seed), lambda seed: make_student(seed=seed), 8)


@pytest.fixture
def wide(problem_with_unlabelled: Any, make_student: Any) -> Study:
    """With an unlabelled pool: an epoch holds more rows than `train` has."""
    study = Study(
        problem_with_unlabelled,
        lambda seed: make_student(seed=seed),
        lambda seed: make_student(seed=seed),
        8,
    )
    study.record()
    return study


def test_every_registered_scheme_is_tried_here() -> None:
    assert {scheme for scheme, _ in RECIPES.values()} == set(SCHEMES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_trial_of_any_scheme_equals_an_uninterrupted_one(wide: Study, name: str) -> None:
    scheme, params = RECIPES[name]
    whole = wide.run(wide.stages(scheme, params))
    reports, checkpoints = list(wide.problem.reports), list(wide.problem.checkpoints)
    assert len(reports) == 3 and all(r.rows_seen == e * 160 for e, r in enumerate(reports, 1))
    for after in (1, 2):
        torch.manual_seed(after)
        wide.problem.reports.clear()
        again = wide.run(wide.stages(scheme, params), seeds=(98, 99), resume=checkpoints[after - 1])
        assert same(whole.student, again.student)
        assert same(whole.report.best_state, again.report.best_state)
        assert whole.report.best_scores == again.report.best_scores
        assert [r.losses for r in wide.problem.reports] == [r.losses for r in reports[after:]]
        assert whole.report.teacher_scores == again.report.teacher_scores
        assert (whole.report.teacher_scores is not None) == (name in JOINED)
        if name in JOINED:
            assert same(whole.teacher, again.teacher)


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_trial_of_any_scheme_gives_the_same_weights(study: Study, name: str) -> None:
    study.record()
    scheme, params = RECIPES[name]
    first, again = (study.run(study.stages(scheme, params)) for _ in range(2))
    assert same(first.student, again.student) and same(first.teacher, again.teacher)
    other = study.run(study.stages(scheme, params), seeds=(1, 7))
    assert not same(first.student, other.student)
    untrained = checkpoint.state_of(study.teacher(7))
    assert same(first.teacher, untrained) == (name not in JOINED)


WITHOUT_SOFT: dict[str, tuple[str, dict[str, Any]]] = {
    "offline": ("offline", {**SOFT, "lambda": 0.0}),
    "multi_teacher": ("multi_teacher", {**SOFT, "lambda": 0.0}),
    "joint_isolated": ("joint_isolated", {**SOFT, "lambda": 0.0}),
    "joint_mutual": ("joint_mutual", {**WARM, "lambda": 0.0, "variant": "mutual", "mu": 1.0}),
    "joint_sum": ("joint_sum", {**WARM, "lambda": 0.0, "clip": "own", "rates": "own"}),
    "route": ("route", {**SOFT, "lambda": 0.0}),
}


@pytest.mark.parametrize("name", WITHOUT_SOFT)
def test_lambda_zero_on_the_labelled_pool_is_none(study: Study, name: str) -> None:
    none = study.run(study.stages("none", {}))
    other = study.run(study.stages(*WITHOUT_SOFT[name]))
    assert same(none.student, other.student)
    assert np.array_equal(none.report.validation_logits_NC, other.report.validation_logits_NC)


@pytest.mark.parametrize("params", [SOFT, {"loss": "mse", "lambda": 0.6}], ids=["kl", "mse"])
def test_route_along_one_anchor_is_offline(study: Study, params: dict[str, Any]) -> None:
    study.problem.signals[anchor_signal(1)] = study.problem.signals[TEACHER]
    offline = study.run(study.stages("offline", params))
    route = study.run(study.stages("route", params, anchors=1))
    assert same(offline.student, route.student)
    assert not same(offline.student, study.run(study.stages("route", params)).student)


@pytest.mark.parametrize("params", [SOFT, {"loss": "mse", "lambda": 0.6}], ids=["kl", "mse"])
def test_one_historical_teacher_is_offline(study: Study, params: dict[str, Any]) -> None:
    given = study.problem.teacher_logits
    study.problem.signals[HISTORICAL] = {pool: logits[:, None] for pool, logits in given.items()}
    offline = study.run(study.stages("offline", params))
    one = study.run(study.stages("multi_teacher", params, historical_weights=(0.3,)))
    assert same(offline.student, one.student)


def test_mutual_without_feedback_is_isolated(study: Study) -> None:
    """And so the replayed trajectory is the live teacher, further epochs than passes included."""
    trajectory = study.record()
    isolated = study.run(study.stages("joint_isolated", SOFT))
    mutual = study.run(study.stages("joint_mutual", {**WARM, "variant": "mutual", "mu": 0.0}))
    assert same(isolated.student, mutual.student)
    assert same(isolated.report.best_state, mutual.report.best_state)
    assert mutual.report.teacher_scores == trajectory.teacher_scores
    felt = study.run(study.stages("joint_mutual", {**WARM, "variant": "mutual", "mu": 1.0}))
    assert not same(felt.teacher, mutual.teacher) and not same(felt.student, mutual.student)


def test_mutual_with_one_shared_optimizer_is_the_sum(study: Study) -> None:
    (summed,) = study.stages(*RECIPES["joint_sum"])
    (mutual,) = study.stages("joint_mutual", {**WARM, "variant": "mutual", "mu": 1.0})
    first, second = study.run((summed,)), study.run((replace(mutual, joint=summed.joint),))
    assert same(first.student, second.student) and same(first.teacher, second.teacher)
    assert not same(first.student, study.run((mutual,)).student)


# ---------------------------------------------------------------- a BERT and the real students


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(config).save_pretrained(folder)
    return folder


def real_student(name: str, seed: int) -> nn.Module:
    shape = InputShape(vocab_size=40, num_tokens=40, num_labels=3, max_length=16, pad_id=0)
    params: dict[str, dict[str, Any]] = {
        "textcnn": {"embed_dim": 8, "filters": 8, "kernel_sizes": (2, 3), "dropout": 0.3},
        "bilstm": {"embed_dim": 8, "hidden": 8, "dropout": 0.3, "pooling": "attention"},
    }
    return build_student(name, params[name], shape, None, seed=seed)


@pytest.mark.parametrize("name", ["textcnn", "bilstm"])
def test_a_bert_that_is_replayed_equals_one_that_is_trained_beside_the_student(
    problem: Any, encoder: Path, name: str
) -> None:
    study = Study(
        problem,
        lambda seed: real_student(name, seed),
        lambda seed: load_encoder_for(encoder, ("ham", "spam", "odd"), seed=seed),
        8,
    )
    trajectory = study.record()
    isolated = study.run(study.stages("joint_isolated", SOFT))
    mutual = study.run(study.stages("joint_mutual", {**WARM, "variant": "mutual", "mu": 0.0}))
    assert same(isolated.student, mutual.student)
    assert mutual.report.teacher_scores == trajectory.teacher_scores
    assert not np.allclose(trajectory.logits_ENC[0], trajectory.logits_ENC[1], atol=1e-3)
