"""Signals and what terms learn: every row meets its own, over pools, shuffles and resumes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdsearch.distill import checkpoint
from kdsearch.distill.losses import hard_label
from kdsearch.distill.stage import (
    HISTORICAL,
    TEACHER,
    TRAJECTORY,
    Seen,
    Stage,
    Term,
    anchor_signal,
    hard_term,
    hidden_signal,
)

HIDDEN, ANCHOR = hidden_signal(2), anchor_signal(1)
POOLS = {"train": list(range(1, 24)), "unlabelled": list(range(24, 32)), "augmented": list(range(32, 40))}
WIDTH = 5


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def of_token(tokens: list[int]) -> dict[str, np.ndarray]:
    """Every signal's rows for texts of one token each: what they hold says which token it was."""
    column = np.asarray(tokens, np.float32)[:, None]
    return {
        TEACHER: column + np.array([0.0, 0.25, 0.5], np.float32),
        ANCHOR: column + np.array([1.0, 0.25, 0.5], np.float32),
        HISTORICAL: column[:, None] + np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        HIDDEN: (column + np.arange(WIDTH) / 8).astype(np.float16),
    }


@pytest.fixture
def tokens(problem: Any, make_pool: Any) -> Any:
    """A problem whose rows are the tokens 1 to 39, over three pools."""
    for name, rows in POOLS.items():
        labels = [t % 3 if name == "train" else -1 for t in rows]
        problem.pools[name] = make_pool([[t] for t in rows], labels, name)
        for signal, values in of_token(rows).items():
            problem.signals.setdefault(signal, {})[name] = values
    return problem


class Spied:
    """A student whose last input the terms can see, and the rows that they met."""

    def __init__(self, student: nn.Module) -> None:
        self.student, self.met = student, []
        self.read = torch.zeros(0, dtype=torch.int64)
        student.register_forward_pre_hook(self._remember)

    def _remember(self, module: Any, inputs: tuple[Tensor, ...]) -> None:
        self.read = inputs[0][:, 0]

    def check(self, seen: Seen) -> Tensor:
        expected = of_token(self.read.tolist())
        for name, values in seen.signals.items():
            assert values.dtype == torch.float32 and not values.requires_grad
            assert np.array_equal(values.numpy(), expected[name].astype(np.float32)), name
        assert torch.equal(seen.labels_B, torch.where(self.read < 24, self.read % 3, -1))
        self.met.extend(self.read.tolist())
        return hard_label(seen.logits_BC, seen.labels_B)


def spying_stage(spied: Spied, *pools: str, name: str = "spy", epochs: int = 2) -> Stage:
    term = Term("spy", 1.0, spied.check, (TEACHER, ANCHOR, HISTORICAL, HIDDEN))
    rows = sum(len(POOLS[pool]) for pool in pools)
    return Stage(name=name, pools=pools, terms=(term,), epochs=epochs, rows_per_epoch=rows)


@pytest.mark.parametrize("seed", [0, 5])
def test_every_row_meets_its_own_signals_in_any_pools(tokens: Any, make_student: Any, seed: int) -> None:
    spied = Spied(make_student(dropout=0.0))
    stages = (spying_stage(spied, "augmented", "train"), spying_stage(spied, "train", "unlabelled", name="b"))
    tokens.fit(spied.student, stages, batch_size=4, seed=seed)
    seen = POOLS["augmented"] + POOLS["train"] * 2 + POOLS["unlabelled"]
    assert sorted(spied.met) == sorted(seen * 2)


def test_every_row_meets_its_own_signals_after_a_resume(tokens: Any, make_student: Any) -> None:
    spied = Spied(make_student(dropout=0.0))
    stage = spying_stage(spied, *POOLS, epochs=3)
    tokens.fit(spied.student, (stage,), batch_size=4)
    whole, checkpoints = list(spied.met), list(tokens.checkpoints)
    spied.met.clear()
    tokens.fit(spied.student, (stage,), batch_size=4, resume=checkpoints[0])
    assert spied.met == whole[39:]


def test_a_trajectory_is_read_by_visit_and_row(tokens: Any, make_student: Any) -> None:
    """Visit e of token t says 100 e + t; after the last recorded visit that one is said again."""
    rows = POOLS["train"]
    visits = [np.asarray(rows, np.float32)[:, None] + 100 * e + np.zeros(3, np.float32) for e in range(3)]
    tokens.signals[TRAJECTORY] = {"train": np.stack(visits)}
    spied, said = Spied(make_student()), []

    def note(seen: Seen) -> Tensor:
        values = seen.signals[TRAJECTORY][:, 0].long()
        assert torch.equal(values % 100, spied.read)
        said.append(set((values // 100).tolist()))
        return hard_label(seen.logits_BC, seen.labels_B)

    def stage(epochs: int, rows: int) -> tuple[Stage, ...]:
        terms = (Term("note", 1.0, note, (TRAJECTORY,)),)
        return (Stage(name="s", pools=("train",), terms=terms, epochs=epochs, rows_per_epoch=rows),)

    tokens.fit(spied.student, stage(5, len(rows)), batch_size=8)
    assert said == [{e} for e in (0, 1, 2, 2, 2) for _ in range(3)]
    said.clear()
    tokens.fit(spied.student, stage(1, 2 * len(rows) + 4), batch_size=8)
    assert said == [{0}] * 3 + [{1}] * 3 + [{2}]


@pytest.mark.parametrize(
    ("signal", "values"),
    [
        (HIDDEN, np.zeros((22, WIDTH), np.float16)),
        (HIDDEN, np.full((23, WIDTH), np.inf, np.float16)),
        (HISTORICAL, np.zeros((23, 2, 4), np.float32)),
        (TRAJECTORY, np.zeros((23, 2, 3), np.float32)),
        (TRAJECTORY, np.full((2, 23, 3), np.nan, np.float32)),
    ],
)
def test_signals_that_do_not_fit_are_refused(
    tokens: Any, make_student: Any, signal: str, values: Any
) -> None:
    tokens.signals[signal] = {"train": values}
    term = Term("never", 1.0, lambda seen: pytest.fail("no step is made"), (signal,))
    stage = Stage(name="s", pools=("train",), terms=(term,), epochs=1, rows_per_epoch=23)
    with pytest.raises(ValueError, match=f"signal '{signal}' of pool 'train'"):
        tokens.fit(make_student(), (stage,))


def test_agreement_and_coverage_are_of_the_validation_signals(problem: Any, make_student: Any) -> None:
    rows, true = len(problem.validation), problem.validation.labels_N
    right = np.eye(3, dtype=np.float32)[true]
    wrong = np.eye(3, dtype=np.float32)[(true + 1) % 3]
    one_right = np.stack([wrong, np.where(np.arange(rows)[:, None] < 10, right, wrong)], axis=1)
    plain = problem.fit(make_student(), problem.stages("none"))
    assert plain.best_scores.agreement is None and plain.best_scores.coverage is None
    report = problem.fit(
        make_student(), problem.stages("none"), validation_signals={TEACHER: right, HISTORICAL: one_right}
    )
    predicted = report.validation_logits_NC.argmax(1)
    assert report.best_scores.agreement == pytest.approx(np.mean(predicted == true))
    assert report.best_scores.coverage == pytest.approx(np.mean(predicted[:10] == true[:10]))


# ---------------------------------------------------------------- what terms learn


def hint_stages(regressor: nn.Module, *, epochs: int = 2) -> tuple[Stage, ...]:
    """A regressor alone reads the hint, then a stage in which it has no part."""

    def distance(seen: Seen) -> Tensor:
        return (regressor(seen.hidden_BD) - seen.signals[HIDDEN]).square().mean()

    hint = Term("hint", 1.0, distance, (HIDDEN,), learned=regressor)
    return (
        Stage(name="hint", pools=("train",), terms=(hint,), epochs=epochs, rows_per_epoch=23, scored=False),
        Stage(name="train", pools=("train",), terms=(hard_term(),), epochs=1, rows_per_epoch=23),
    )


def regressor(seed: int = 3) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(8, WIDTH)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_what_a_term_learns_goes_on_from_the_checkpoint(tokens: Any, make_student: Any, after: int) -> None:
    learned, again = regressor(), regressor(seed=4)
    student, student_again = make_student(), make_student(seed=9)
    whole = tokens.fit(student, hint_stages(learned))
    checkpoints, reports = list(tokens.checkpoints), list(tokens.reports)
    resumed = tokens.fit(student_again, hint_stages(again), resume=checkpoints[after - 1])
    assert same(learned.state_dict(), again.state_dict())
    assert same(student.state_dict(), student_again.state_dict())
    assert same(whole.best_state, resumed.best_state)
    assert [r.losses for r in tokens.reports[3:]] == [r.losses for r in reports[after:]]
    assert whole.best_state.keys() == student.state_dict().keys(), "it is no part of the student"


def test_what_a_term_learns_is_trained_with_the_student(tokens: Any, make_student: Any) -> None:
    learned, untouched = regressor(), checkpoint.state_of(regressor())
    tokens.fit(make_student(), hint_stages(learned), learning_rate=3e-2)
    assert not same(checkpoint.state_of(learned), untouched)
    assert tokens.reports[1].losses["hint"] < tokens.reports[0].losses["hint"]


def test_what_has_no_part_in_a_stage_stands_still(tokens: Any, make_student: Any) -> None:
    """The classifier in the hint stage, the regressor after it: no gradient, no step, no weight decay."""
    learned, states = regressor(), []
    student = make_student()
    before = checkpoint.state_of(student)

    def keep(report: Any, data: bytes) -> None:
        tokens.keep(report, data)
        states.append((checkpoint.state_of(student), checkpoint.state_of(learned)))

    tokens.fit(student, hint_stages(learned), weight_decay=0.5, schedule="constant", on_epoch=keep)
    for part in ("classifier.weight", "classifier.bias"):
        assert torch.equal(before[part], states[1][0][part])
        assert not torch.equal(before[part], states[2][0][part])
    assert not torch.equal(before["embedding.weight"], states[0][0]["embedding.weight"])
    assert not same(states[0][1], states[1][1])
    assert same(states[1][1], states[2][1])


def test_a_regressor_is_clipped_together_with_the_student(
    tokens: Any, make_student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, student, norms = regressor(), make_student(), []
    step = torch.optim.AdamW.step

    def measured(self: torch.optim.AdamW) -> Any:
        given = [p.grad.flatten() for m in (student, learned) for p in m.parameters() if p.grad is not None]
        norms.append(torch.cat(given).norm().item())
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    tokens.fit(student, hint_stages(learned), clip_norm=1e-3)
    assert norms == pytest.approx([1e-3] * len(norms), rel=1e-2)
