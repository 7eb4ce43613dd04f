"""Left between two steps and gone on with, a training is what it would have been; micro-batches add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdsearch.data.batches import micro_batches
from kdsearch.distill import checkpoint
from kdsearch.distill.checkpoint import Progress
from kdsearch.distill.fit import FitReport, Keep
from kdsearch.distill.live import LiveTeacher
from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import (
    HISTORICAL,
    TEACHER,
    TRAJECTORY,
    Stage,
    anchor_signal,
    hidden_signal,
)

SOFT = {"loss": "kl", "temperature": 2.0, "lambda": 0.6}
WARM = {"temperature": 2.0}
SUM = {"lambda": 0.6, "clip": "global", "rates": "shared", "learning_rate": 3e-3}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "offline": ("offline", SOFT),
    "mse": ("offline", {"loss": "mse", "lambda": 0.6}),
    "hint": ("hint", {**SOFT, "hint_epochs": 1, "layer": 1}),
    "multi_teacher": ("multi_teacher", SOFT),
    "route": ("route", SOFT),
    "isolated": ("joint_isolated", SOFT),
    "mutual": ("joint_mutual", {**WARM, "variant": "mutual", "lambda": 0.6, "mu": 0.5}),
    "prokt": ("joint_mutual", {**WARM, "variant": "prokt", "teacher_mix": 0.3}),
    "sum": ("joint_sum", {**WARM, **SUM}),
}
RESUMED = ("none", "offline", "hint", "isolated", "mutual", "prokt")


@dataclass
class Trial:
    """What a training left."""

    report: FitReport
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    losses: list[Any]


@dataclass
class Bench:
    """A problem in which a third of the texts has no label, and every signal there is."""

    problem: Any
    kind: Any
    dropout: float = 0.3

    def stages(self, name: str) -> tuple[Stage, ...]:
        scheme, params = RECIPES[name]
        more = {"anchors": 2, "historical_weights": (2.0, 1.0), "student_width": 8, "teacher_width": 5}
        return build_scheme(scheme, params).stages(replace(self.problem.setting, **more))

    def run(
        self, name: str, *, seeds: tuple[int, int] = (0, 7), keep: Keep | None = None, **how: Any
    ) -> Trial:
        problem = self.problem
        problem.reports.clear()
        student, teacher = (self.kind(seed=seed, dropout=self.dropout) for seed in seeds)
        pools = {**problem.pools, "validation": problem.validation}
        live = LiveTeacher(module=teacher, pools=pools, pad_id=0)
        report = problem.fit(student, self.stages(name), live=live, keep=keep, **how)
        states = checkpoint.state_of(student), checkpoint.state_of(teacher)
        return Trial(report, *states, [(r.epoch, r.rows_seen, r.losses, r.scores) for r in problem.reports])


@pytest.fixture
def wide(problem_with_unlabelled: Any, make_student: Any) -> Bench:
    problem, rng = problem_with_unlabelled, np.random.default_rng(11)
    train = problem.pools["train"]
    labels_N = np.where(np.arange(len(train)) % 3 == 0, -1, train.labels_N)
    problem.pools["train"] = replace(train, labels_N=labels_N)
    logits = problem.signals[TEACHER]
    other = {name: rng.normal(size=values.shape).astype(np.float32) for name, values in logits.items()}
    hidden = {n: rng.normal(size=(len(values), 5)).astype(np.float16) for n, values in logits.items()}
    problem.signals |= {
        HISTORICAL: {name: np.stack([values, other[name]], axis=1) for name, values in logits.items()},
        anchor_signal(1): other,
        anchor_signal(2): logits,
        hidden_signal(1): hidden,
        TRAJECTORY: {"train": np.stack([other["train"], logits["train"]])},
    }
    return Bench(problem, make_student)


class Kept:
    """Every checkpoint that was put, with how far it is; time stands still unless `tick` moves it."""

    def __init__(self, every_s: float = 0.0) -> None:
        self.found: list[tuple[bytes, Progress]] = []
        self.time = 0.0
        self.keep = Keep(every_s=every_s, put=self.put, clock=lambda: self.time)

    def put(self, data: bytes, progress: Progress) -> None:
        self.found.append((data, progress))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def assert_same(again: Trial, whole: Trial) -> None:
    assert same(again.student, whole.student)
    if whole.report.teacher_scores is not None:
        assert same(again.teacher, whole.teacher)
    assert same(again.report.best_state, whole.report.best_state)
    assert np.array_equal(again.report.validation_logits_NC, whole.report.validation_logits_NC)
    facts = ("best_scores", "best_epoch", "epochs_run", "rows_seen", "stopped", "teacher_scores")
    assert all(getattr(again.report, fact) == getattr(whole.report, fact) for fact in facts)
    assert again.losses == whole.losses[len(whole.losses) - len(again.losses) :]


# ---------------------------------------------------------------- left and gone on with


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_from_any_step_equals_uninterrupted(wide: Bench, name: str) -> None:
    whole = wide.run(name)
    kept = Kept()
    assert_same(wide.run(name, keep=kept.keep), whole)
    steps = sum(-(-stage.rows_per_epoch // 16) * stage.epochs for stage in wide.stages(name))
    unscored = sum(stage.epochs for stage in wide.stages(name) if not stage.scored)
    assert len(kept.found) >= steps - unscored, "after every step, before what comes of it is validated"
    rng = np.random.default_rng(len(name))
    for number in {0, len(kept.found) - 1, *rng.choice(len(kept.found), 4).tolist()}:
        data, progress = kept.found[number]
        torch.manual_seed(number)
        again = wide.run(name, seeds=(98, 99), resume=data, keep=Kept().keep)
        assert_same(again, whole)
        assert len(again.losses) == 3 - progress.epochs_run


@pytest.mark.parametrize("name", ["offline", "prokt"])
def test_asked_to_stop_nothing_is_lost(wide: Bench, name: str) -> None:
    """A chain of workers, each of which is stopped after a few steps or amid a validation."""
    whole, kept, resume, workers = wide.run(name), Kept(every_s=1e9), None, 0
    wide.problem.checkpoints.clear()
    while True:
        asked = iter([False] * (5 + workers))
        trial = wide.run(
            name, seeds=(workers, 7 + workers), resume=resume, keep=kept.keep, should_stop=_until(asked)
        )
        if not trial.report.stopped:
            break
        workers += 1
        resume = max((*wide.problem.checkpoints, kept.found[-1][0]), key=_progress_of)
    assert workers > 2 and len(kept.found) <= workers
    assert_same(trial, whole)


def _until(asked: Any) -> Callable[[], bool]:
    return lambda: next(asked, True)


def _progress_of(data: bytes) -> int:
    rows: int = checkpoint.unpack(data)["rows_seen"]
    return rows


def test_stopped_amid_a_validation_only_the_validation_is_done_again(wide: Bench) -> None:
    whole, kept = wide.run("offline"), Kept(every_s=1e9)
    asked = iter([False] * 10)  # ten steps an epoch
    stopped = wide.run("offline", keep=kept.keep, should_stop=_until(asked))
    assert stopped.report.stopped and stopped.report.epochs_run == 0
    ((data, progress),) = kept.found
    assert progress.within is not None and (progress.within.batches, progress.rows_seen) == (10, 160)
    assert_same(wide.run("offline", resume=data), whole)


def test_checkpoints_come_when_they_are_due(wide: Bench) -> None:
    kept = Kept(every_s=4.0)

    def breathe() -> None:
        kept.time += 1.0

    wide.run("none", keep=kept.keep, breathe=breathe)
    rows = [progress.rows_seen for _, progress in kept.found]
    begun = [within.batches for _, progress in kept.found if (within := progress.within) is not None]
    assert begun == [4, 8] * 3 and rows == [64, 128, 224, 288, 384, 448]


def test_stopped_before_a_step_there_is_nothing_new_to_keep(wide: Bench) -> None:
    kept = Kept()
    assert wide.run("none", keep=kept.keep, should_stop=lambda: True).report.stopped
    assert not kept.found


def test_a_checkpoint_of_the_first_format_is_gone_on_from(wide: Bench) -> None:
    whole = wide.run("offline")
    content = checkpoint.unpack(wide.problem.checkpoints[0])
    del content["within"]
    old = checkpoint.pack({**content, "format": 1})
    assert checkpoint.unpack(old)["format"] == 1
    assert_same(wide.run("offline", seeds=(3, 4), resume=old), whole)


# ---------------------------------------------------------------- micro-batches


def gradients_of(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch, **how: Any) -> list[list[Any]]:
    """Of every step, before it is clipped; the weights stand still, so that steps can be compared."""
    found: list[list[Any]] = []

    def noted(self: torch.optim.AdamW) -> None:
        found.append(
            [None if p.grad is None else p.grad.clone() for g in self.param_groups for p in g["params"]]
        )

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", noted)
        bench.run(name, clip_norm=1e9, **how)
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_micro_batches_have_the_gradient_of_the_whole_batch(
    wide: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = replace(wide, dropout=0.0)
    whole = gradients_of(bench, name, monkeypatch)
    losses = [report.losses for report in bench.problem.reports]
    parts = gradients_of(bench, name, monkeypatch, accumulate=3)
    assert len(parts) == len(whole) > 15
    for ours, theirs in zip(parts, whole, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if b is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)
    for report, expected in zip(bench.problem.reports, losses, strict=True):
        assert report.losses == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["offline", "prokt"])
def test_in_micro_batches_a_training_is_gone_on_with_as_well(wide: Bench, name: str) -> None:
    whole, kept = wide.run(name, accumulate=4), Kept()
    wide.run(name, accumulate=4, keep=kept.keep)
    for data, _ in kept.found[2:-1:9]:
        assert_same(wide.run(name, accumulate=4, seeds=(98, 99), resume=data), whole)
    assert not same(whole.student, wide.run(name).student), "dropout draws other numbers"


def test_every_micro_batch_takes_a_breath(wide: Bench) -> None:
    breaths: list[int] = []
    wide.run("none", accumulate=4, breathe=lambda: breaths.append(1))
    assert len(breaths) == 3 * (10 * 4 + 1)


@pytest.mark.parametrize(("rows", "count"), [(7, 1), (7, 3), (2, 5), (1, 1), (32, 2)])
def test_micro_batches_are_the_batch_in_order(rows: int, count: int) -> None:
    batch = np.arange(rows) * 3
    parts = micro_batches(batch, count)
    assert np.concatenate(parts).tolist() == batch.tolist()
    assert len(parts) == min(rows, count) and all(len(part) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
