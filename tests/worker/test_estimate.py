"""What a study will cost: counts that are exact, rates that are measured, nothing that is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.core.errors import DataError
from kdsearch.core.space import Choice, Fixed, Param, Range
from kdsearch.search.check import load
from kdsearch.worker.estimate import Estimate, _foreseen_tokens, estimate
from kdsearch.worker.probing import middle

STUDY = """\
version: 1
name: tiny
data:
  train: synthetic://spam_opinions?rows=200&seed=1
  validation: synthetic://spam_opinions?rows=80&seed=2
  augmented: {times: 2}
teacher:
  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 400}
  max_length: 24
  finetune: {epochs: 3, learning_rate: 1e-3, batch_size: 32, anchors: 2}
students:
  - {type: bag, embed_dim: 8, hidden: 8}
  - {type: bert_small, init: teacher, every: 1}
schemes: [none, offline]
training: {epochs: 2, batch_size: 32}
budget: {trials: 6}
finalists: {max: 2, seeds: [1, 2]}
"""


def estimated(folder: Path, text: str = STUDY) -> tuple[Estimate, list[str]]:
    (folder / "study.yaml").write_text(text)
    said: list[str] = []
    made = estimate(load(folder / "study.yaml", {}), device="cpu", threads=1, on_progress=said.append)
    return made, said


def test_counts_and_rates(tmp_path: Path) -> None:
    made, said = estimated(tmp_path)
    assert made.rows == {"train": 200, "validation": 80, "augmented": 400}
    assert (made.num_labels, made.trials, made.first_trials) == (2, 6, 4)
    assert made.repeats == (2 + 2) * 2
    assert made.teacher is not None
    # 3 epochs of 200 rows, and the validation pool after each
    assert made.training_s == pytest.approx(600 / made.teacher.learning + 240 / made.teacher.reading)
    # validation, and what `offline` may train on
    assert made.caching_s == pytest.approx((80 + 600) / made.teacher.reading)
    bag, bert = made.kinds
    assert bag.rates is not None and bag.trial_s is not None
    assert bag.trial_s > 2 * 600 / bag.rates.learning
    assert (bert.rates, bert.trial_s) == (None, None)
    assert bert.why
    assert made.trials_s == pytest.approx((6 + 8) * bag.trial_s)
    assert made.seconds == pytest.approx(made.training_s + made.caching_s + made.trials_s)
    assert made.prepared_mb > 3 * made.teacher.size_mb
    assert made.disk_mb > made.students_mb > 0
    assert [line for line in said if line.startswith("probing")] == [
        "probing the teacher", "probing bag", "probing bert_small",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_a_teacher_that_learns_beside_the_student_costs_its_own_pace(tmp_path: Path) -> None:
    alone, _ = estimated(tmp_path, STUDY.replace("[none, offline]", "[none]"))
    beside, _ = estimated(tmp_path, STUDY.replace("[none, offline]", "[none, joint_sum]"))
    assert beside.teacher is not None
    (costly, _), (cheap, _) = beside.kinds, alone.kinds
    assert costly.trial_s is not None and cheap.trial_s is not None and cheap.rates is not None
    # half of the trials are of joint_sum: 2 epochs of 600 rows at the teacher's pace
    assert costly.trial_s > 0.5 * 1200 / beside.teacher.learning
    assert alone.caching_s == pytest.approx(80 / alone.teacher.reading) if alone.teacher else False


def test_what_cannot_be_read_is_the_error_that_creating_would_give(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        estimated(tmp_path, STUDY.replace("synthetic://spam_opinions?rows=80&seed=2", "nowhere.csv"))


def test_tokens_of_a_tokenizer_that_is_made_later() -> None:
    assert _foreseen_tokens("two words") == pytest.approx(2 * 1.3 + 2)
    assert _foreseen_tokens("很好 ok") == pytest.approx(2 + 1.3 + 2)
    assert _foreseen_tokens("") == 2


def test_the_middle_of_a_space() -> None:
    numbers = {"low": 0.0, "high": 1000.0}
    space = {
        "kind": Param(kind="str", default=Choice(("a", "b")), allowed=("a", "b")),
        "size": Param(kind="int", default=Choice((1, 2, 3)), **numbers),
        "even": Param(kind="int", default=Range(2, 10, step=2, integer=True), **numbers),
        "log": Param(kind="float", default=Range(1.0, 100.0, log=True), **numbers),
        "fixed": Param(kind="float", default=Fixed(0.5), **numbers),
        "gone": Param(kind="float", default=Fixed(0.5), when=("kind", "b"), **numbers),
    }
    found = middle(space, {"size": Choice((7,))})
    assert found == {"kind": "a", "size": 7, "even": 6, "log": pytest.approx(10.0), "fixed": 0.5}
