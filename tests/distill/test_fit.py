"""The training loop: equal weights again and after a resume, and what reaches each loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdsearch.core.errors import ArtifactError, KdsearchError
from kdsearch.core.records import Scores
from kdsearch.data.batches import Output
from kdsearch.data.tokens import TokenPool
from kdsearch.distill import checkpoint
from kdsearch.distill import fit as fit_module
from kdsearch.distill.fit import FitReport
from kdsearch.distill.losses import hard_label
from kdsearch.distill.stage import TEACHER, Seen, Stage, Term, hard_term, soft_term
from kdsearch.measure import quality
from kdsearch.teachers.signals import compute_logits

OFFLINE: dict[str, Any] = {"loss": "kl", "temperature": 2.0, "lambda": 0.5}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def same_report(a: FitReport, b: FitReport) -> bool:
    logits = np.array_equal(a.validation_logits_NC, b.validation_logits_NC)
    facts = ("best_scores", "best_epoch", "epochs_run", "rows_seen", "stopped")
    return logits and same(a.best_state, b.best_state) and all(getattr(a, f) == getattr(b, f) for f in facts)


def spying(weigh: Callable[[Seen], Tensor], seen: list[Seen], **term: Any) -> Term:
    def loss(batch: Seen) -> Tensor:
        seen.append(batch)
        return weigh(batch)

    return Term("spy", 1.0, loss, **term)


# ---------------------------------------------------------------- the same weights


@pytest.mark.parametrize("scheme", [("none", {}), ("offline", OFFLINE)], ids=lambda s: s[0])
def test_the_same_trial_twice_gives_the_same_weights(problem_with_unlabelled, make_student, scheme) -> None:
    problem, (name, params) = problem_with_unlabelled, scheme
    first, second = (problem.fit(make_student(), problem.stages(name, **params)) for _ in range(2))
    assert same_report(first, second)
    other = problem.fit(make_student(), problem.stages(name, **params), seed=6)
    assert not same(first.best_state, other.best_state)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_resumed_equals_uninterrupted(problem_with_unlabelled, make_student, after: int) -> None:
    problem = problem_with_unlabelled
    stages = problem.stages("offline", **OFFLINE)
    whole_student, resumed_student = make_student(), make_student(seed=99)
    whole = problem.fit(whole_student, stages)
    reports, checkpoints = list(problem.reports), list(problem.checkpoints)
    torch.manual_seed(123456)
    resumed = problem.fit(resumed_student, stages, resume=checkpoints[after - 1])
    assert same_report(whole, resumed)
    assert same(whole_student.state_dict(), resumed_student.state_dict())
    facts = [(r.epoch, r.rows_seen, r.losses, r.scores) for r in problem.reports]
    assert facts == [(r.epoch, r.rows_seen, r.losses, r.scores) for r in reports + reports[after:]]


def test_a_best_epoch_behind_the_checkpoint_survives_it(problem, make_student, monkeypatch) -> None:
    falling = {1: 0.9, 2: 0.1, 3: 0.2}

    def score(*args: Any, **kwargs: Any) -> Scores:
        return replace(quality.score(*args, **kwargs), quality=falling[len(problem.reports) + 1])

    monkeypatch.setattr(fit_module, "score", score)
    whole = problem.fit(make_student(), problem.stages("none"))
    assert (whole.best_epoch, whole.best_scores.quality) == (1, 0.9)
    problem.reports.pop()
    resumed = problem.fit(make_student(), problem.stages("none"), resume=problem.checkpoints[1])
    assert same_report(whole, resumed)
    resumed = problem.fit(make_student(), problem.stages("none"), resume=problem.checkpoints[2])
    assert same_report(whole, resumed)


def test_what_happens_between_epochs_changes_nothing(problem, make_student) -> None:
    stages = problem.stages("offline", **OFFLINE)
    quiet = problem.fit(make_student(), stages)
    noisy = problem.fit(make_student(), stages, on_epoch=lambda *_: torch.manual_seed(0) and None)
    assert same_report(quiet, noisy)


def test_lambda_zero_on_the_labelled_pool_is_none(problem, make_student) -> None:
    none = problem.fit(make_student(), problem.stages("none"))
    offline = problem.fit(make_student(), problem.stages("offline", **{**OFFLINE, "lambda": 0.0}))
    assert same_report(none, offline)
    distilled = problem.fit(make_student(), problem.stages("offline", **OFFLINE))
    assert not same(none.best_state, distilled.best_state)


def test_stopped_before_a_step_nothing_is_lost_that_was_reported(problem, make_student) -> None:
    stages = problem.stages("offline", **OFFLINE)
    whole = problem.fit(make_student(), stages)
    problem.checkpoints.clear()
    asked = iter([False] * 8 + [True])  # six steps an epoch: in the middle of the second
    stopped = problem.fit(make_student(), stages, should_stop=functools.partial(next, asked))
    assert (stopped.stopped, stopped.epochs_run, len(problem.checkpoints)) == (True, 1, 1)
    assert stopped.best_scores is not None
    resumed = problem.fit(make_student(), stages, resume=problem.checkpoints[0])
    assert same_report(whole, resumed)


def test_stopped_before_the_first_step(problem, make_student) -> None:
    student = make_student()
    before = checkpoint.state_of(student)
    report = problem.fit(student, problem.stages("none"), should_stop=lambda: True)
    assert report.stopped and report.best_scores is None and not report.best_state
    assert same(before, student.state_dict())


# ---------------------------------------------------------------- what reaches the losses


def test_the_student_trains_in_train_mode_after_every_validation(problem, make_student) -> None:
    student = make_student()
    problem.fit(student, problem.stages("none"))
    steps = -(-problem.setting.rows_per_epoch // problem.settings.batch_size)
    assert student.modes == ([True] * steps + [False]) * 3


def test_each_row_meets_its_own_teacher_logits_and_label(problem, make_pool, make_student) -> None:
    """Row i of a pool is the one token i, so that what the student read says which row it was."""
    seen: list[Seen] = []
    rows = {"train": list(range(1, 30)), "unlabelled": list(range(30, 40))}
    for name, tokens in rows.items():
        labels = [t % 3 if name == "train" else -1 for t in tokens]
        problem.pools[name] = make_pool([[t] for t in tokens], labels, name)
        problem.teacher_logits[name] = np.asarray([[t, -t, 0] for t in tokens], np.float32)
    student = make_student(dropout=0.0)
    read = torch.zeros(0, dtype=torch.int64)

    def remember(module: Any, inputs: tuple[Tensor, ...]) -> None:
        nonlocal read
        read = inputs[0][:, 0]

    student.register_forward_pre_hook(remember)
    met: list[int] = []

    def check(batch: Seen) -> Tensor:
        assert TEACHER in batch.signals
        assert torch.equal(batch.signals[TEACHER][:, 0].long(), read)
        assert torch.equal(batch.labels_B, torch.where(read < 30, read % 3, -1))
        assert not batch.signals[TEACHER].requires_grad
        met.extend(read.tolist())
        return hard_label(batch.logits_BC, batch.labels_B)

    stage = Stage(
        name="spy",
        pools=("train", "unlabelled"),
        terms=(spying(check, seen, needs=(TEACHER,)),),
        epochs=2,
        rows_per_epoch=39,
    )
    problem.fit(student, (stage,), batch_size=4)
    assert sorted(met) == sorted([*range(1, 40)] * 2)


def test_batches_without_any_label_train_on_the_soft_term_alone(
    problem_with_unlabelled, make_student
) -> None:
    problem = problem_with_unlabelled
    terms = {"both": (hard_term(0.5), soft_term(0.5, loss="mse", temperature=None))}
    terms["soft"] = terms["both"][1:]
    reports = {
        name: problem.fit(
            make_student(),
            (Stage(name="s", pools=("unlabelled",), terms=t, epochs=2, rows_per_epoch=70),),
        )
        for name, t in terms.items()
    }
    assert problem.reports[0].losses["hard"] == 0.0
    assert same(reports["both"].best_state, reports["soft"].best_state)


def test_the_teacher_is_not_asked_for_where_no_term_needs_it(problem, make_student) -> None:
    problem.teacher_logits.clear()
    seen: list[Seen] = []
    spy = spying(lambda s: hard_label(s.logits_BC, s.labels_B), seen)
    problem.fit(
        make_student(), (Stage(name="s", pools=("train",), terms=(spy,), epochs=1, rows_per_epoch=90),)
    )
    assert seen and all(not batch.signals for batch in seen)


@pytest.mark.parametrize("damage", ["rows", "classes", "nan"])
def test_teacher_logits_that_do_not_fit_are_refused(problem, make_student, damage: str) -> None:
    logits = problem.teacher_logits["train"].copy()
    if damage == "nan":
        logits[3, 1] = np.nan
    problem.teacher_logits["train"] = {"rows": logits[1:], "classes": logits[:, 1:], "nan": logits}[damage]
    with pytest.raises(ValueError, match="signal 'teacher' of pool 'train'"):
        problem.fit(make_student(), problem.stages("offline", **OFFLINE))


@pytest.mark.parametrize("params", [OFFLINE, {"loss": "mse", "lambda": 0.7}], ids=["kl", "mse"])
def test_permuting_the_classes_permutes_the_student(problem, make_student, params) -> None:
    order = [2, 0, 1]
    plain = problem.fit(make_student(), problem.stages("offline", **params))
    inverse = np.argsort(order)
    permuted = make_student()
    with torch.no_grad():
        permuted.classifier.weight.copy_(permuted.classifier.weight[order].clone())
        permuted.classifier.bias.copy_(permuted.classifier.bias[order].clone())
    problem.signals = {TEACHER: {n: v[:, order] for n, v in problem.teacher_logits.items()}}
    relabel = functools.partial(_relabelled, inverse=inverse)
    problem.pools = {n: relabel(pool) for n, pool in problem.pools.items()}
    problem.validation = relabel(problem.validation)
    other = problem.fit(permuted, problem.stages("offline", **params))
    np.testing.assert_allclose(
        other.validation_logits_NC, plain.validation_logits_NC[:, order], rtol=1e-3, atol=1e-4
    )


def _relabelled(pool: TokenPool, *, inverse: np.ndarray) -> TokenPool:
    return TokenPool(pool.name, pool.ids, pool.offsets, inverse[pool.labels_N], pool.keys)


# ---------------------------------------------------------------- reports, schedule, trouble


def test_reports_add_up(problem, make_student) -> None:
    breaths = []
    report = problem.fit(
        make_student(), problem.stages("offline", **OFFLINE), breathe=lambda: breaths.append(1)
    )
    assert [(r.stage, r.epoch, r.rows_seen) for r in problem.reports] == [
        ("distil", epoch, 90 * epoch) for epoch in (1, 2, 3)
    ]
    for r in problem.reports:
        assert r.losses["total"] == pytest.approx(r.losses["soft"] + r.losses["hard"])
    assert problem.reports[0].losses["total"] > problem.reports[-1].losses["total"]
    assert (report.epochs_run, report.rows_seen) == (3, 270)
    assert report.seconds == pytest.approx(sum(r.seconds for r in problem.reports), rel=0.1, abs=0.05)
    assert len(breaths) == 3 * (6 + 1)
    best = max(problem.reports, key=lambda r: (r.scores.quality, -r.scores.nll))
    assert (report.best_epoch, report.best_scores) == (best.epoch, best.scores)


def test_best_by_likelihood(problem, make_student) -> None:
    report = problem.fit(make_student(), problem.stages("none"), select="nll", learning_rate=5e-2)
    best = min(problem.reports, key=lambda r: r.scores.nll)
    assert report.best_epoch == best.epoch


def test_the_best_state_gives_the_stored_validation_logits(problem, make_student) -> None:
    report = problem.fit(make_student(), problem.stages("none"), learning_rate=5e-2)
    student = make_student(seed=8)
    student.load_state_dict(report.best_state)
    again = compute_logits(student, problem.validation, pad_id=0, device="cpu", breathe=lambda: None)
    assert np.array_equal(again, report.validation_logits_NC)


def test_an_unscored_stage_is_neither_scored_nor_the_best(problem, make_student) -> None:
    stages = (
        Stage(name="hint", pools=("train",), terms=(hard_term(),), epochs=2, rows_per_epoch=90, scored=False),
        Stage(name="train", pools=("train",), terms=(hard_term(),), epochs=1, rows_per_epoch=90),
    )
    report = problem.fit(make_student(), stages)
    assert [(r.stage, r.scores is None) for r in problem.reports] == [
        ("hint", True),
        ("hint", True),
        ("train", False),
    ]
    assert report.best_epoch == 3
    resumed = problem.fit(make_student(), stages, resume=problem.checkpoints[1])
    assert same_report(report, resumed)
    with pytest.raises(ValueError, match="no stage is scored"):
        problem.fit(make_student(), stages[:1])


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_learning_rate_over_the_rows(problem, make_student, schedule: str, monkeypatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self))[1]
    )
    problem.fit(make_student(), problem.stages("none"), schedule=schedule, learning_rate=0.5, batch_size=9)
    assert len(rates) == 30
    if schedule == "constant":
        assert set(rates) == {0.5}
        return
    peak = rates.index(max(rates))
    assert peak in (2, 3) and 0 < rates[0] < rates[1] < rates[2] <= 0.5
    assert all(a > b > 0 for a, b in zip(rates[peak + 1 :], rates[peak + 2 :], strict=False))
    assert rates[-1] < 0.02


def test_frozen_parameters_stand_still(problem, make_student) -> None:
    student = make_student()
    student.embedding.requires_grad_(False)
    before = checkpoint.state_of(student)
    problem.fit(student, problem.stages("none"))
    after = student.state_dict()
    assert torch.equal(before["embedding.weight"], after["embedding.weight"])
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_a_diverging_training_says_so(problem, make_student) -> None:
    class Diverging(make_student):
        def forward(self, ids: Tensor, mask: Tensor) -> Output:
            output = super().forward(ids, mask)
            return Output(output.logits_BC * float("inf"), output.hidden_BD)

    with pytest.raises(KdsearchError, match="diverged: the loss of epoch 1") as error:
        problem.fit(Diverging(), problem.stages("none"))
    assert "learning rate" in error.value.hint


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_damaged_checkpoints_are_named(problem, make_student, damage: bytes | None) -> None:
    problem.fit(make_student(), problem.stages("none"))
    data = problem.checkpoints[0][:-1000] if damage is None else damage or b"\x00"
    with pytest.raises(ArtifactError, match="checkpoint"):
        problem.fit(make_student(), problem.stages("none"), resume=data)


def test_a_checkpoint_never_executes_what_it_holds(problem, make_student, tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("executed").touch, ())

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "module": Evil()}, path)
    with pytest.raises(ArtifactError):
        problem.fit(make_student(), problem.stages("none"), resume=path.read_bytes())
    assert not (tmp_path / "executed").exists()
