"""One step of the loop: what decays, what is clipped, which rows and which dropout come next."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdsearch.data.batches import collate
from kdsearch.distill import checkpoint
from kdsearch.distill.stage import TEACHER, Seen, Stage, Term, hard_term


def stage(term: Term, *, epochs: int = 1, rows: int = 90) -> tuple[Stage, ...]:
    return (Stage(name="s", pools=("train",), terms=(term,), epochs=epochs, rows_per_epoch=rows),)


def flat(seen: Seen) -> Tensor:
    """A loss without any slope, so that whatever moves is moved by the optimizer alone."""
    return seen.logits_BC.sum() * 0.0


def test_weights_decay_and_biases_and_norms_do_not(problem: Any, make_student: Any) -> None:
    student = make_student()
    before = checkpoint.state_of(student)
    problem.fit(
        student, stage(Term("flat", 1.0, flat)), schedule="constant", learning_rate=0.1, weight_decay=0.5
    )
    assert any(value.ndim == 1 and value.any() for value in before.values())
    for name, value in student.state_dict().items():
        left = 0.95**6 if value.ndim > 1 else 1.0  # six steps
        torch.testing.assert_close(value, before[name] * left)


@pytest.mark.parametrize(("weight", "clipped"), [(1e4, True), (1e-4, False)])
def test_long_gradients_are_clipped_and_short_ones_kept(
    problem: Any, make_student: Any, monkeypatch: pytest.MonkeyPatch, weight: float, clipped: bool
) -> None:
    student, norms = make_student(), []
    step = torch.optim.AdamW.step

    def measured(self: torch.optim.AdamW) -> Any:
        norms.append(torch.cat([p.grad.flatten() for p in student.parameters()]).norm().item())
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    problem.fit(student, stage(hard_term(weight)), clip_norm=0.5)
    assert len(norms) == 6
    if clipped:
        assert norms == pytest.approx([0.5] * 6, rel=1e-3)
    else:
        assert all(0 < norm < 0.01 for norm in norms)


def test_the_reported_loss_is_the_mean_over_rows(problem: Any, make_student: Any) -> None:
    student, pool = make_student(dropout=0.0), problem.pools["train"]
    everything = collate(pool, torch.arange(len(pool)).numpy(), pad_id=0, device="cpu")
    with torch.no_grad():
        logits = student(everything.input_ids_BT, everything.attention_mask_BT).logits_BC
    expected = 0.5 * F.cross_entropy(logits, everything.labels_B).item()
    problem.fit(student, stage(hard_term(0.5)), learning_rate=1e-12, batch_size=37)  # 37, 37, 16 rows
    assert problem.reports[0].losses["hard"] == pytest.approx(expected, rel=1e-5)


def test_a_further_epoch_goes_on_where_the_last_one_ended(problem: Any, make_student: Any) -> None:
    met: list[int] = []
    problem.teacher_logits["train"][:, 0] = torch.arange(90).numpy()

    def note(seen: Seen) -> Tensor:
        assert TEACHER in seen.signals
        met.extend(seen.signals[TEACHER][:, 0].long().tolist())
        return flat(seen)

    problem.fit(make_student(), stage(Term("note", 1.0, note, needs=(TEACHER,)), epochs=3, rows=30))
    assert sorted(met) == list(range(90))


def test_each_epoch_draws_other_random_numbers(problem: Any, make_student: Any) -> None:
    """Where nothing is learned, two passes over the same rows differ by their dropout alone."""
    student, drawn = make_student(dropout=0.5), []

    def note(seen: Seen) -> Tensor:
        drawn.append(torch.rand(4))
        return flat(seen)

    problem.fit(student, stage(Term("note", 1.0, note), epochs=2), batch_size=90)
    assert len(drawn) == 2
    assert not torch.equal(drawn[0], drawn[1])


def test_of_equal_epochs_the_first_is_the_best(problem: Any, make_student: Any) -> None:
    report = problem.fit(make_student(), stage(Term("flat", 1.0, flat), epochs=3), weight_decay=0.0)
    assert [r.scores for r in problem.reports] == [report.best_scores] * 3
    assert report.best_epoch == 1


def test_a_checkpoint_from_before_there_were_companions_is_gone_on_from(
    problem: Any, make_student: Any
) -> None:
    first, again = make_student(), make_student(seed=9)
    problem.fit(first, problem.stages("none"))
    old = {k: v for k, v in checkpoint.unpack(problem.checkpoints[0]).items() if k != "companions"}
    problem.fit(again, problem.stages("none"), resume=checkpoint.pack(old))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
