"""A teacher in training: live, replayed, alternating, resumed, and never touched where it should not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdsearch.data.batches import Output
from kdsearch.distill import checkpoint
from kdsearch.distill.joint import feedback_term, imitation_term, shared_soft_term, teacher_hard_term
from kdsearch.distill.live import LiveTeacher
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

ROWS = 90
SOFT = {"loss": "kl", "temperature": 2.0}


def joint_stage(*terms: Term, epochs: int = 3, rows: int = ROWS, **joint: Any) -> Stage:
    how = Joint(**{"passes": 3, "learning_rate": 2e-2, **joint})
    return Stage(name="joint", pools=("train",), terms=terms, epochs=epochs, rows_per_epoch=rows, joint=how)


def isolated(epochs: int = 3, **joint: Any) -> Stage:
    terms = (teacher_hard_term(), hard_term(0.4), soft_term(0.6, **SOFT, signal=LIVE))
    return joint_stage(*terms, epochs=epochs, **joint)


def prokt() -> Stage:
    """The teacher's turn on (1-m) CE(v) + m KD(sg z, v), then the student's on the soft term alone."""
    near = imitation_term(0.3, temperature=1.0)
    return replace(joint_stage(teacher_hard_term(0.7), near), then=(soft_term(1.0, **SOFT, signal=LIVE),))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---------------------------------------------------------------- one loss, or two


def test_mutual_with_one_shared_optimizer_is_the_sum(bench: Any) -> None:
    """μ = 1, equal rates and schedules, one clip over both: then the gradients are all there is."""
    shared = {"learning_rate": 1e-2, "schedule": "student", "clip": "global"}
    mutual = (
        teacher_hard_term(),
        hard_term(0.4),
        soft_term(0.6, **SOFT, signal=LIVE),
        feedback_term(0.6, temperature=2.0),
    )
    summed = (teacher_hard_term(), hard_term(0.4), shared_soft_term(0.6, temperature=2.0))
    first, student, teacher = bench.run(joint_stage(*mutual, **shared))
    second, student_again, teacher_again = bench.run(joint_stage(*summed, **shared))
    assert same(student, student_again) and same(teacher, teacher_again)
    assert first.teacher_scores == second.teacher_scores and first.best_scores == second.best_scores
    own = bench.run(joint_stage(*mutual, **{**shared, "clip": "own"}))
    assert not same(student, own[1])
    assert not same(bench.run(isolated())[2], teacher), "feedback reaches the teacher"


@pytest.mark.parametrize("clip", ["own", "global"])
def test_gradients_are_clipped_to_the_norm_of_each_or_of_both(
    bench: Any, monkeypatch: pytest.MonkeyPatch, clip: str
) -> None:
    live, student, norms = bench.teacher(), bench.kind(), []
    step = torch.optim.AdamW.step

    def norm(module: nn.Module) -> float:
        return torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()

    def measured(self: torch.optim.AdamW) -> Any:
        norms.append((norm(student), norm(live.module)))
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    stage = joint_stage(teacher_hard_term(1e4), hard_term(1e4), epochs=1, clip=clip)
    bench.problem.fit(student, (stage,), live=live, clip_norm=0.5)
    assert len(norms) == 6
    for ours, teachers in norms:
        together = [ours, teachers] if clip == "own" else [float(np.hypot(ours, teachers))]
        assert together == pytest.approx([0.5] * len(together), rel=1e-3)


def test_each_has_its_own_rate_and_schedule(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[float, ...]] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW) -> Any:
        rates.append(tuple(group["lr"] for group in self.param_groups))
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    terms = (teacher_hard_term(), hard_term())
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


def test_without_the_teachers_gradient_a_student_is_as_without_the_teacher(bench: Any) -> None:
    """The hard terms alone: running a teacher beside it leaves the student's dropout what it is."""
    _, student, teacher = bench.run(joint_stage(teacher_hard_term(), hard_term()))
    alone = bench.kind()
    bench.problem.fit(
        alone,
        (Stage(name="train", pools=("train",), terms=(hard_term(),), epochs=3, rows_per_epoch=ROWS),),
    )
    assert same(student, checkpoint.state_of(alone))
    assert not same(teacher, checkpoint.state_of(bench.kind(seed=7)))


def test_a_term_that_detaches_the_teacher_leaves_it_without_any_gradient(bench: Any) -> None:
    """No gradient is no step: not even weight decay moves a teacher that no term teaches."""
    before = checkpoint.state_of(bench.kind(seed=7))
    stage = joint_stage(soft_term(1.0, **SOFT, signal=LIVE))
    _, student, teacher = bench.run(stage, weight_decay=0.5)
    assert same(before, teacher)
    assert not same(student, checkpoint.state_of(bench.kind()))


def test_a_student_that_no_term_teaches_stands_still(bench: Any) -> None:
    before = checkpoint.state_of(bench.kind())
    _, student, teacher = bench.run(
        joint_stage(teacher_hard_term(), feedback_term(0.5, temperature=2.0)), weight_decay=0.5
    )
    assert same(before, student)
    assert not same(teacher, checkpoint.state_of(bench.kind(seed=7)))


def test_after_its_passes_the_teacher_is_neither_run_nor_moved(bench: Any) -> None:
    live = bench.teacher()
    stage = joint_stage(
        teacher_hard_term(), hard_term(0.5), shared_soft_term(0.5, temperature=2.0), epochs=4, passes=2
    )
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


def test_the_teacher_trains_in_train_mode_and_the_student_after_every_validation(bench: Any) -> None:
    live, student = bench.teacher(), bench.kind()
    live.module.eval()
    bench.problem.fit(student, (isolated(),), live=live)
    assert student.modes == ([True] * 6 + [False]) * 3
    assert live.module.modes == [True] * 18 + [False]


def test_every_run_of_the_teacher_draws_other_random_numbers_than_any_before(bench: Any) -> None:
    drawn: list[float] = []

    class Drawing(bench.kind):
        def forward(self, ids: Tensor, mask: Tensor) -> Output:
            if self.training:
                drawn.append(torch.rand(()).item())
            return super().forward(ids, mask)

    live = LiveTeacher(module=Drawing(), pools=bench.teacher().pools, pad_id=0)
    bench.run(prokt(), live=live)
    assert len(drawn) == 2 * 18 and len(set(drawn)) == len(drawn)
    bench.run(prokt(), live=replace(live, module=Drawing()), seed=6)
    assert len(set(drawn)) == 4 * 18, "the seed decides them"


# ---------------------------------------------------------------- turns


def test_the_second_turn_sees_the_stepped_teacher(bench: Any, make_student: Any) -> None:
    said: list[Tensor] = []
    spy = Term(
        "near", 1.0, lambda s: said.append(s.signals[LIVE].detach()) or 0.0 * s.logits_BC.sum(), (LIVE,)
    )
    teaching = (teacher_hard_term(), spy)
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


def test_turns_alternate(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert set(bench.problem.reports[0].losses) == {"teacher_hard", "teacher_soft", "soft", "total"}


# ---------------------------------------------------------------- resuming, and what cannot be


STAGES = {
    "isolated": isolated(),
    "past its passes": isolated(passes=1),
    "sum": joint_stage(
        teacher_hard_term(),
        hard_term(0.4),
        shared_soft_term(0.6, temperature=2.0),
        clip="global",
        student_learning_rate=3e-3,
    ),
    "alternating": prokt(),
    "part of a pass": joint_stage(
        teacher_hard_term(), hard_term(0.4), shared_soft_term(0.6, temperature=2.0), rows=50, passes=1
    ),
}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_joint_trial_equals_an_uninterrupted_one(bench: Any, name: str, after: int) -> None:
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


def test_stopped_in_the_middle_of_an_epoch_it_goes_on_from_its_checkpoint(bench: Any) -> None:
    _, student, teacher = bench.run(isolated())
    bench.problem.checkpoints.clear()
    asked = iter([False] * 9 + [True])
    stopped, _, _ = bench.run(isolated(), should_stop=lambda: next(asked))
    assert stopped.stopped and stopped.teacher_scores is None
    _, student_again, teacher_again = bench.run(isolated(), resume=bench.problem.checkpoints[0], seeds=(1, 2))
    assert same(student, student_again) and same(teacher, teacher_again)


def test_a_trial_without_a_live_teacher_has_no_scores_of_one(bench: Any) -> None:
    report = bench.problem.fit(bench.kind(), bench.problem.stages("none"), live=bench.teacher())
    assert report.teacher_scores is None


def test_a_joint_stage_needs_its_teacher_on_the_same_rows(bench: Any, make_pool: Any) -> None:
    with pytest.raises(ValueError, match="trains a teacher, and there is none"):
        bench.problem.fit(bench.kind(), (isolated(),))
    live = bench.teacher()
    train = live.pools["train"]
    other = replace(live, pools={**live.pools, "train": replace(train, keys=train.keys[::-1])})
    with pytest.raises(ValueError, match="has other rows"):
        bench.problem.fit(bench.kind(), (isolated(),), live=other)


def test_a_teacher_in_training_has_the_only_stage(bench: Any) -> None:
    terms = (soft_term(1.0, **SOFT, signal=TRAJECTORY),)
    replayed = Stage(name="joint", pools=("train",), terms=terms, epochs=1, rows_per_epoch=ROWS)
    bench.problem.signals[TRAJECTORY] = {"train": np.zeros((1, ROWS, 3), np.float32)}
    stages: list[Sequence[Stage]] = [
        (isolated(), isolated()),
        (replayed, *bench.problem.stages("none")),
        (replace(isolated(), pools=("train", "unlabelled")),),
    ]
    for each in stages:
        with pytest.raises(ValueError, match="the only stage"):
            bench.problem.fit(bench.kind(), each, live=bench.teacher())
