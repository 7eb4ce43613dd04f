"""The trajectory: what a live teacher says, recorded once; replayed it teaches to the last bit the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdsearch.core.errors import KdsearchError
from kdsearch.core.specteacher import JointSpec
from kdsearch.data.batches import Output
from kdsearch.distill import checkpoint
from kdsearch.distill.fit import FitReport, Keep
from kdsearch.distill.joint import teacher_hard_term
from kdsearch.distill.stage import LIVE, TRAJECTORY, Joint, Stage, hard_term, soft_term
from kdsearch.distill.trajectory import Trajectory, record_trajectory

ROWS = 90
SOFT = {"loss": "kl", "temperature": 2.0}


def joint_stage(*terms: Any, epochs: int = 3, rows: int = ROWS, passes: int = 3) -> Stage:
    joint = Joint(passes=passes, learning_rate=2e-2)
    return Stage(name="joint", pools=("train",), terms=terms, epochs=epochs, rows_per_epoch=rows, joint=joint)


def isolated(epochs: int = 3, passes: int = 3) -> Stage:
    terms = (teacher_hard_term(), hard_term(0.4), soft_term(0.6, **SOFT, signal=LIVE))
    return joint_stage(*terms, epochs=epochs, passes=passes)


def replay(bench: Any, trajectory: Trajectory, epochs: int) -> tuple[FitReport, dict[str, Tensor]]:
    bench.problem.signals[TRAJECTORY] = {"train": trajectory.logits_ENC}
    terms = (hard_term(0.4), soft_term(0.6, **SOFT, signal=TRAJECTORY))
    stage = Stage(name="joint", pools=("train",), terms=terms, epochs=epochs, rows_per_epoch=ROWS)
    student = bench.kind()
    report = bench.problem.fit(student, (stage,))
    return report, checkpoint.state_of(student)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("passes", "epochs"), [(3, 3), (2, 4), (4, 2)])
def test_the_replayed_teacher_equals_the_live_one(bench: Any, passes: int, epochs: int) -> None:
    live, student, _ = bench.run(isolated(epochs, passes=passes))
    live_reports = list(bench.problem.reports)
    trajectory = bench.record(passes)
    assert trajectory is not None and trajectory.logits_ENC.shape == (passes, ROWS, 3)
    bench.problem.reports.clear()
    again, student_again = replay(bench, trajectory, epochs)
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


def test_several_passes_an_epoch_see_the_same_teacher(bench: Any) -> None:
    """Of a pool of which an epoch holds two passes, each visit is replayed by its number."""
    stage = joint_stage(
        teacher_hard_term(), soft_term(1.0, **SOFT, signal=LIVE), epochs=2, rows=2 * ROWS, passes=3
    )
    _, student, _ = bench.run(stage)
    trajectory = bench.record(3)
    bench.problem.signals[TRAJECTORY] = {"train": trajectory.logits_ENC}
    terms = (soft_term(1.0, **SOFT, signal=TRAJECTORY),)
    again = bench.kind()
    stage = Stage(name="joint", pools=("train",), terms=terms, epochs=2, rows_per_epoch=2 * ROWS)
    bench.problem.fit(again, (stage,))
    assert same(student, checkpoint.state_of(again))


def test_a_student_of_another_size_does_not_change_the_teacher(bench: Any) -> None:
    """Neither its random numbers nor its gradients reach an isolated teacher."""
    _, _, first = bench.run(isolated())
    _, _, second = bench.run(isolated(), seeds=(5, 7), learning_rate=1e-4)
    assert same(first, second)


def test_the_trajectory_is_said_before_the_step_in_train_mode(bench: Any) -> None:
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
def test_a_resumed_trajectory_equals_an_uninterrupted_one(bench: Any, after: int) -> None:
    whole = bench.record(3)
    checkpoints, reports = list(bench.problem.checkpoints), list(bench.problem.reports)
    torch.manual_seed(31)
    resumed = bench.record(3, seed=99, resume=checkpoints[after - 1])
    assert np.array_equal(whole.logits_ENC, resumed.logits_ENC)
    assert whole.teacher_scores == resumed.teacher_scores
    assert [r.losses for r in bench.problem.reports[3:]] == [r.losses for r in reports[after:]]
    assert [(r.epoch, r.rows_seen, r.scores) for r in reports] == [(e, e * ROWS, None) for e in (1, 2, 3)]
    assert reports[0].losses["total"] > reports[2].losses["total"]


def test_a_stopped_recording_is_no_trajectory(bench: Any) -> None:
    asked = iter([False] * 8 + [True])
    assert bench.record(3, should_stop=lambda: next(asked)) is None
    assert len(bench.problem.checkpoints) == 1


def test_a_recording_left_at_any_step_is_gone_on_with(bench: Any) -> None:
    whole, kept = bench.record(3), []
    reports = list(bench.problem.reports)
    keep = Keep(every_s=0.0, put=lambda data, progress: kept.append((data, progress)))
    bench.record(3, keep=keep)
    assert [p.epochs_run for _, p in kept] == [0] * 5 + [1] * 5 + [2] * 5, "six steps a pass"
    assert all(0 < p.rows_seen - p.epochs_run * ROWS < ROWS for _, p in kept)
    for data, progress in kept[::4]:
        bench.problem.reports.clear()
        asked = iter([False] * 2)
        again: list[bytes] = []
        stop = Keep(every_s=1e9, put=lambda data, _: again.append(data))  # noqa: B023 - used at once
        stopped = bench.record(3, seed=98, resume=data, keep=stop, should_stop=lambda: next(asked, True))  # noqa: B023
        assert stopped is None
        newest = again[0] if again else bench.problem.checkpoints[-1]
        done = len(bench.problem.reports)
        resumed = bench.record(3, seed=99, resume=newest)
        assert np.array_equal(whole.logits_ENC, resumed.logits_ENC)
        assert whole.teacher_scores == resumed.teacher_scores
        found = [r.losses for r in bench.problem.reports]
        assert found == [r.losses for r in reports[progress.epochs_run :]] and done <= len(found)


def test_a_recording_in_micro_batches_learns_the_same(bench: Any, make_student: Any) -> None:
    class Sober(make_student):
        def __init__(self, *, seed: int = 0) -> None:
            super().__init__(seed=seed, dropout=0.0)

    sober = replace(bench, kind=Sober)
    whole = sober.record(2)
    losses = [r.losses["total"] for r in bench.problem.reports]
    bench.problem.reports.clear()
    parts = sober.record(2, settings=replace(bench.problem.settings, accumulate=3))
    assert [r.losses["total"] for r in bench.problem.reports] == pytest.approx(losses, rel=1e-3)
    np.testing.assert_allclose(parts.logits_ENC[0], whole.logits_ENC[0], atol=2e-3)


def test_a_diverging_teacher_says_so(bench: Any) -> None:
    class Diverging(bench.kind):
        def forward(self, ids: Tensor, mask: Tensor) -> Output:
            output = super().forward(ids, mask)
            return Output(output.logits_BC * float("inf"), output.hidden_BD)

    with pytest.raises(KdsearchError, match="diverged: the loss of pass 1") as error:
        replace(bench, kind=Diverging).record(1)
    assert "teacher.joint.learning_rate" in error.value.hint
