"""A teacher in training: live, replayed, alternating, resumed, and never touched where it should not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdsearch.core.specteacher import JointSpec
from kdsearch.data.batches import Output
from kdsearch.distill import checkpoint
from kdsearch.distill.fit import FitReport
from kdsearch.distill.live import LiveTeacher
from kdsearch.distill.losses import hard_label, soft_target
from kdsearch.distill.stage import (
    LIVE,
    TRAJECTORY,
    Joint,
    Seen,
    Stage,
    Term,
    hard_term,
    soft_term,
)
from kdsearch.distill.trajectory import Trajectory, record_trajectory

ROWS = 90
SOFT = {"loss": "kl", "temperature": 2.0}
Report = tuple[FitReport, dict[str, Tensor], dict[str, Tensor]]


def of_teacher(weight: float = 1.0) -> Term:
    return Term("teacher_hard", weight, lambda s: hard_label(s.signals[LIVE], s.labels_B), (LIVE,))


def feedback(weight: float) -> Term:
    """The student's soft loss as the teacher feels it."""
    return Term("back", weight, lambda s: soft_target(s.signals[LIVE], s.logits_BC.detach(), 2.0), (LIVE,))


def both(weight: float) -> Term:
    """The soft loss, felt by student and teacher."""
    return Term("soft", weight, lambda s: soft_target(s.signals[LIVE], s.logits_BC, 2.0), (LIVE,))


def joint_stage(*terms: Term, epochs: int = 3, rows: int = ROWS, **joint: Any) -> Stage:
    how = Joint(**{"passes": 3, "learning_rate": 2e-2, **joint})
    return Stage(name="joint", pools=("train",), terms=terms, epochs=epochs, rows_per_epoch=rows, joint=how)


def isolated(epochs: int = 3, **joint: Any) -> Stage:
    terms = (of_teacher(), hard_term(0.4), soft_term(0.6, **SOFT, signal=LIVE))
    return joint_stage(*terms, epochs=epochs, **joint)


def replayed(epochs: int = 3) -> Stage:
    terms = (hard_term(0.4), soft_term(0.6, **SOFT, signal=TRAJECTORY))
    return Stage(name="joint", pools=("train",), terms=terms, epochs=epochs, rows_per_epoch=ROWS)


def prokt() -> Stage:
    """The teacher's turn on (1-m) CE(v) + m KD(sg z, v), then the student's on the soft term alone."""
    near = Term("near", 0.3, lambda s: soft_target(s.logits_BC.detach(), s.signals[LIVE], 1.0), (LIVE,))
    return replace(joint_stage(of_teacher(0.7), near), then=(soft_term(1.0, **SOFT, signal=LIVE),))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@dataclass
class Bench:
    """A problem, a kind of student (the teacher is one too), and what trains them."""

    problem: Any
    kind: Any

    def teacher(self, seed: int = 7) -> LiveTeacher:
        pools = {**self.problem.pools, "validation": self.problem.validation}
        return LiveTeacher(module=self.kind(seed=seed), pools=pools, pad_id=0)

    def run(
        self,
        stage: Stage,
        *,
        resume: bytes | None = None,
        seeds: tuple[int, int] = (0, 7),
        live: LiveTeacher | None = None,
        **changed: Any,
    ) -> Report:
        """The report, and the last weights of student and teacher."""
        student, teacher = self.kind(seed=seeds[0]), live or self.teacher(seeds[1])
        report = self.problem.fit(student, (stage,), resume=resume, live=teacher, **changed)
        return report, checkpoint.state_of(student), checkpoint.state_of(teacher.module)

    def record(self, epochs: int, **arguments: Any) -> Trajectory | None:
        joint = JointSpec(epochs=epochs, batch_size=16, learning_rate=2e-2)
        rest = {
            "joint": joint,
            "validation": self.problem.validation,
            "settings": self.problem.settings,
            "on_epoch": self.problem.keep,
            "resume": None,
            "breathe": lambda: None,
            "should_stop": lambda: False,
        }
        seed = arguments.pop("seed", 7)
        return record_trajectory(self.kind(seed=seed), self.problem.pools["train"], **{**rest, **arguments})

    def replay(self, trajectory: Trajectory, epochs: int, **changed: Any) -> tuple[FitReport, Any]:
        self.problem.signals[TRAJECTORY] = {"train": trajectory.logits_ENC}
        student = self.kind()
        report = self.problem.fit(student, (replayed(epochs),), **changed)
        return report, checkpoint.state_of(student)


@pytest.fixture
def bench(problem: Any, make_student: Any) -> Bench:
    return Bench(problem, make_student)


# ---------------------------------------------------------------- live and replayed


@pytest.mark.parametrize(("passes", "epochs"), [(3, 3), (2, 4), (4, 2)])
def test_the_replayed_teacher_equals_the_live_one(bench: Bench, passes: int, epochs: int) -> None:
    live, student, _ = bench.run(isolated(epochs, passes=passes))
    live_reports = list(bench.problem.reports)
    trajectory = bench.record(passes)
    assert trajectory is not None and trajectory.logits_ENC.shape == (passes, ROWS, 3)
    bench.problem.reports.clear()
    again, student_again = bench.replay(trajectory, epochs)
    assert same(student, student_again)
    assert same(live.best_state, again.best_state)
    assert np.array_equal(live.validation_logits_NC, again.validation_logits_NC)
    for ours, theirs in zip(live_reports, bench.problem.reports, strict=True):
        assert {k: ours.losses[k] for k in ("hard", "soft")} == {
            k: theirs.losses[k] for k in ("hard", "soft")
        }
    if epochs >= passes:
        assert live.teacher_scores == trajectory.teacher_scores
    assert not np.array_equal(trajectory.logits_ENC[0], trajectory.logits_ENC[1])


def test_several_passes_an_epoch_see_the_same_teacher(bench: Bench) -> None:
    """Of a pool of which an epoch holds two passes, each visit is replayed by its number."""
    stage = joint_stage(of_teacher(), soft_term(1.0, **SOFT, signal=LIVE), epochs=2, rows=2 * ROWS, passes=3)
    _, student, _ = bench.run(stage)
    trajectory = bench.record(3)
    bench.problem.signals[TRAJECTORY] = {"train": trajectory.logits_ENC}
    terms = (soft_term(1.0, **SOFT, signal=TRAJECTORY),)
    again = bench.kind()
    stage = Stage(name="joint", pools=("train",), terms=terms, epochs=2, rows_per_epoch=2 * ROWS)
    bench.problem.fit(again, (stage,))
    assert same(student, checkpoint.state_of(again))


def test_a_student_of_another_size_does_not_change_the_teacher(bench: Bench) -> None:
    """Neither its random numbers nor its gradients reach an isolated teacher."""
    _, _, first = bench.run(isolated())
    _, _, second = bench.run(isolated(), seeds=(5, 7), learning_rate=1e-4)
    assert same(first, second)


def test_without_the_teachers_gradient_a_student_is_as_without_the_teacher(bench: Bench) -> None:
    """The hard terms alone: running a teacher beside it leaves the student's dropout what it is."""
    _, student, teacher = bench.run(joint_stage(of_teacher(), hard_term()))
    alone = bench.kind()
    bench.problem.fit(
        alone,
        (Stage(name="train", pools=("train",), terms=(hard_term(),), epochs=3, rows_per_epoch=ROWS),),
    )
    assert same(student, checkpoint.state_of(alone))
    assert not same(teacher, checkpoint.state_of(bench.kind(seed=7)))


def test_the_trajectory_is_said_before_the_step_in_train_mode(bench: Bench) -> None:
    """A teacher that does not move says at every visit what the untrained one says, but for its dropout."""
    frozen = bench.kind(seed=7, dropout=0.0)
    spec = JointSpec(epochs=2, batch_size=16, learning_rate=1e-30)
    trajectory = record_trajectory(
        frozen,
        bench.problem.pools["train"],
        joint=spec,
        validation=bench.problem.validation,
        settings=replace(bench.problem.settings, weight_decay=0.0),
        on_epoch=bench.problem.keep,
        resume=None,
        breathe=lambda: None,
        should_stop=lambda: False,
    )
    assert trajectory is not None
    assert frozen.modes[:-1] == [True] * 12 and frozen.modes[-1] is False
    alone = np.stack(
        [
            frozen(torch.tensor([row or [0]]), torch.tensor([[1] * len(row) or [0]])).logits_BC[0].detach()
            for row in (bench.problem.pools["train"].row(i).tolist() for i in range(ROWS))
        ]
    )
    np.testing.assert_allclose(trajectory.logits_ENC, np.stack([alone, alone]), atol=1e-5)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_trajectory_equals_an_uninterrupted_one(bench: Bench, after: int) -> None:
    whole = bench.record(3)
    checkpoints, reports = list(bench.problem.checkpoints), list(bench.problem.reports)
    torch.manual_seed(31)
    resumed = bench.record(3, seed=99, resume=checkpoints[after - 1])
    assert np.array_equal(whole.logits_ENC, resumed.logits_ENC)
    assert whole.teacher_scores == resumed.teacher_scores
    assert [r.losses for r in bench.problem.reports[3:]] == [r.losses for r in reports[after:]]
    assert [(r.epoch, r.rows_seen, r.scores) for r in reports] == [(e, e * ROWS, None) for e in (1, 2, 3)]
    assert reports[0].losses["total"] > reports[2].losses["total"]


def test_a_stopped_recording_is_no_trajectory(bench: Bench) -> None:
    asked = iter([False] * 8 + [True])
    assert bench.record(3, should_stop=lambda: next(asked)) is None
    assert len(bench.problem.checkpoints) == 1


# ---------------------------------------------------------------- one loss, or two


def test_mutual_with_one_shared_optimizer_is_the_sum(bench: Bench) -> None:
    """μ = 1, equal rates and schedules, one clip over both: then the gradients are all there is."""
    shared = {"learning_rate": 1e-2, "schedule": "student", "clip": "global"}
    mutual = (of_teacher(), hard_term(0.4), soft_term(0.6, **SOFT, signal=LIVE), feedback(0.6))
    summed = (of_teacher(), hard_term(0.4), both(0.6))
    first, student, teacher = bench.run(joint_stage(*mutual, **shared))
    second, student_again, teacher_again = bench.run(joint_stage(*summed, **shared))
    assert same(student, student_again) and same(teacher, teacher_again)
    assert first.teacher_scores == second.teacher_scores and first.best_scores == second.best_scores
    own = bench.run(joint_stage(*mutual, **{**shared, "clip": "own"}))
    assert not same(student, own[1])
    assert not same(bench.run(isolated())[2], teacher), "feedback reaches the teacher"


@pytest.mark.parametrize("clip", ["own", "global"])
def test_gradients_are_clipped_to_the_norm_of_each_or_of_both(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, clip: str
) -> None:
    live, student, norms = bench.teacher(), bench.kind(), []
    step = torch.optim.AdamW.step

    def norm(module: nn.Module) -> float:
        return torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()

    def measured(self: torch.optim.AdamW) -> Any:
        norms.append((norm(student), norm(live.module)))
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    stage = joint_stage(of_teacher(1e4), hard_term(1e4), epochs=1, clip=clip)
    bench.problem.fit(student, (stage,), live=live, clip_norm=0.5)
    assert len(norms) == 6
    for ours, teachers in norms:
        together = [ours, teachers] if clip == "own" else [float(np.hypot(ours, teachers))]
        assert together == pytest.approx([0.5] * len(together), rel=1e-3)


def test_each_has_its_own_rate_and_schedule(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[float, ...]] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW) -> Any:
        rates.append(tuple(group["lr"] for group in self.param_groups))
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    terms = (of_teacher(), hard_term())
    bench.run(joint_stage(*terms, passes=2, student_learning_rate=0.25), schedule="constant")
    assert len(rates) == 18 and {rate[:2] for rate in rates} == {(0.25, 0.25)}
    teachers = [rate[2] for rate in rates]
    assert teachers[0] < max(teachers) <= 2e-2 and teachers[11] < 0.1 * max(teachers)
    rates.clear()
    bench.run(joint_stage(*terms, schedule="student", learning_rate=1e-2), schedule="linear")
    assert all(rate[0] == rate[2] for rate in rates)
    rates.clear()
    bench.run(joint_stage(*terms, schedule="constant", learning_rate=0.125))
    assert {rate[2] for rate in rates} == {0.125}


# ---------------------------------------------------------------- who feels what


def test_a_term_that_detaches_the_teacher_leaves_it_without_any_gradient(bench: Bench) -> None:
    """No gradient is no step: not even weight decay moves a teacher that no term teaches."""
    before = checkpoint.state_of(bench.kind(seed=7))
    stage = joint_stage(soft_term(1.0, **SOFT, signal=LIVE))
    _, student, teacher = bench.run(stage, weight_decay=0.5)
    assert same(before, teacher)
    assert not same(student, checkpoint.state_of(bench.kind()))


def test_a_student_that_no_term_teaches_stands_still(bench: Bench) -> None:
    before = checkpoint.state_of(bench.kind())
    _, student, teacher = bench.run(joint_stage(of_teacher(), feedback(0.5)), weight_decay=0.5)
    assert same(before, student)
    assert not same(teacher, checkpoint.state_of(bench.kind(seed=7)))


def test_after_its_passes_the_teacher_is_neither_run_nor_moved(bench: Bench) -> None:
    live = bench.teacher()
    stage = joint_stage(of_teacher(), hard_term(0.5), both(0.5), epochs=4, passes=2)
    states: list[dict[str, Tensor]] = []
    said: list[Tensor] = []

    def note(seen: Seen) -> Tensor:
        said.append(seen.signals[LIVE])
        return seen.logits_BC.sum() * 0.0

    def keep(report: Any, data: bytes) -> None:
        bench.problem.keep(report, data)
        states.append(checkpoint.state_of(live.module))

    noting = replace(stage, terms=(*stage.terms, Term("note", 1.0, note, (LIVE,))))
    bench.problem.fit(bench.kind(), (noting,), live=live, on_epoch=keep, weight_decay=0.5)
    assert not same(states[0], states[1])
    assert same(states[1], states[2]) and same(states[2], states[3])
    assert live.module.modes == [True] * 12 + [False]  # two passes of six batches, then the last scoring
    assert [v.requires_grad for v in said] == [True] * 12 + [False] * 12


def test_the_teacher_trains_in_train_mode_and_the_student_after_every_validation(bench: Bench) -> None:
    live, student = bench.teacher(), bench.kind()
    live.module.eval()
    bench.problem.fit(student, (isolated(),), live=live)
    assert student.modes == ([True] * 6 + [False]) * 3
    assert live.module.modes == [True] * 18 + [False]


# ---------------------------------------------------------------- turns


def test_the_second_turn_sees_the_stepped_teacher(bench: Bench, make_student: Any) -> None:
    said: list[Tensor] = []
    spy = Term(
        "near", 1.0, lambda s: said.append(s.signals[LIVE].detach()) or 0.0 * s.logits_BC.sum(), (LIVE,)
    )
    teaching = (of_teacher(), spy)
    stage = replace(joint_stage(*teaching, epochs=1), then=(hard_term(), replace(spy, name="after")))
    live = LiveTeacher(module=make_student(seed=7, dropout=0.0), pools=bench.teacher().pools, pad_id=0)
    bench.run(stage, live=live)
    assert len(said) == 12
    for before, after in zip(said[::2], said[1::2], strict=True):
        assert before.shape == after.shape and not torch.equal(before, after)
    silent = LiveTeacher(module=make_student(seed=7, dropout=0.0), pools=live.pools, pad_id=0)
    said.clear()
    bench.run(replace(stage, terms=(spy,)), live=silent)
    for before, after in zip(said[::2], said[1::2], strict=True):
        assert torch.equal(before, after), "without a step in between nothing changes"


def test_turns_alternate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's step moves the teacher alone, then the student's step the student alone."""
    live, student, moved = bench.teacher(), bench.kind(), []
    step = torch.optim.AdamW.step

    def has_gradient(module: nn.Module) -> bool:
        return any(p.grad is not None for p in module.parameters())

    def noted(self: torch.optim.AdamW) -> Any:
        moved.append((has_gradient(live.module), has_gradient(student)))
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    bench.problem.fit(student, (replace(prokt(), epochs=4),), live=live)
    assert moved == [(True, False), (False, True)] * 18 + [(False, True)] * 6
    assert set(bench.problem.reports[0].losses) == {"teacher_hard", "near", "soft", "total"}


# ---------------------------------------------------------------- resuming, and what cannot be


STAGES = {
    "isolated": isolated(),
    "past its passes": isolated(passes=1),
    "sum": joint_stage(of_teacher(), hard_term(0.4), both(0.6), clip="global", student_learning_rate=3e-3),
    "alternating": prokt(),
    "part of a pass": joint_stage(of_teacher(), hard_term(0.4), both(0.6), rows=50, passes=1),
}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_joint_trial_equals_an_uninterrupted_one(bench: Bench, name: str, after: int) -> None:
    stage = STAGES[name]
    whole, student, teacher = bench.run(stage)
    reports, checkpoints = list(bench.problem.reports), list(bench.problem.checkpoints)
    torch.manual_seed(4711)
    again, student_again, teacher_again = bench.run(stage, resume=checkpoints[after - 1], seeds=(98, 99))
    assert same(student, student_again) and same(teacher, teacher_again)
    assert same(whole.best_state, again.best_state)
    assert (whole.best_scores, whole.best_epoch) == (again.best_scores, again.best_epoch)
    assert whole.teacher_scores == again.teacher_scores is not None
    assert [r.losses for r in bench.problem.reports[3:]] == [r.losses for r in reports[after:]]


def test_stopped_in_the_middle_of_an_epoch_it_goes_on_from_its_checkpoint(bench: Bench) -> None:
    _, student, teacher = bench.run(isolated())
    bench.problem.checkpoints.clear()
    asked = iter([False] * 9 + [True])
    stopped, _, _ = bench.run(isolated(), should_stop=lambda: next(asked))
    assert stopped.stopped and stopped.teacher_scores is None
    _, student_again, teacher_again = bench.run(isolated(), resume=bench.problem.checkpoints[0], seeds=(1, 2))
    assert same(student, student_again) and same(teacher, teacher_again)


def test_a_trial_without_a_live_teacher_has_no_scores_of_one(bench: Bench) -> None:
    report = bench.problem.fit(bench.kind(), bench.problem.stages("none"), live=bench.teacher())
    assert report.teacher_scores is None


def test_a_joint_stage_needs_its_teacher_on_the_same_rows(bench: Bench, make_pool: Any) -> None:
    with pytest.raises(ValueError, match="trains a teacher, and there is none"):
        bench.problem.fit(bench.kind(), (isolated(),))
    live = bench.teacher()
    train = live.pools["train"]
    other = replace(live, pools={**live.pools, "train": replace(train, keys=train.keys[::-1])})
    with pytest.raises(ValueError, match="has other rows"):
        bench.problem.fit(bench.kind(), (isolated(),), live=other)


def test_a_teacher_in_training_has_the_only_stage(bench: Bench) -> None:
    bench.problem.signals[TRAJECTORY] = {"train": np.zeros((1, ROWS, 3), np.float32)}
    stages: list[Sequence[Stage]] = [
        (isolated(), isolated()),
        (replayed(), *bench.problem.stages("none")),
        (replace(isolated(), pools=("train", "unlabelled")),),
    ]
    for each in stages:
        with pytest.raises(ValueError, match="the only stage"):
            bench.problem.fit(bench.kind(), each, live=bench.teacher())


def test_a_diverging_teacher_says_so(bench: Bench) -> None:
    class Diverging(bench.kind):
        def forward(self, ids: Tensor, mask: Tensor) -> Output:
            output = super().forward(ids, mask)
            return Output(output.logits_BC * float("inf"), output.hidden_BD)

    with pytest.raises(Exception, match="diverged: the loss of pass 1") as error:
        Bench(bench.problem, Diverging).record(1)
    assert "teacher.joint.learning_rate" in error.value.hint
