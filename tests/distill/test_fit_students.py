"""Every registered student through the loop: resumed equals uninterrupted, texts keep to themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdsearch.core.space import Range, Scalar
from kdsearch.students import STUDENTS
from kdsearch.students.base import InputShape, Student
from kdsearch.students.building import build_student
from kdsearch.teachers.signals import compute_logits, take

SHAPE = InputShape(vocab_size=40, num_tokens=40, num_labels=3, max_length=16, pad_id=0)
OFFLINE = {"loss": "kl", "temperature": 2.0, "lambda": 0.5}


def smallest(name: str) -> dict[str, Scalar]:
    """The first value of each dimension; dropout on, since its random numbers are what a resume can lose."""
    params: dict[str, Scalar] = {}
    for key, param in STUDENTS[name].SPACE.items():
        if param.exists(params):
            params[key] = 0.3 if isinstance(param.default, Range) else param.default.values()[0]
            if key == "dropout":
                params[key] = 0.3
    return params


def build(name: str, *, seed: int) -> Student:
    return build_student(name, smallest(name), SHAPE, None, seed=seed)


@pytest.mark.parametrize("name", STUDENTS)
def test_resumed_equals_uninterrupted(problem_with_unlabelled, name: str) -> None:
    problem = problem_with_unlabelled
    stages = problem.stages("offline", **OFFLINE)
    whole = problem.fit(build(name, seed=0), stages)
    torch.manual_seed(99)
    resumed = problem.fit(build(name, seed=1), stages, resume=problem.checkpoints[0])
    again = problem.fit(build(name, seed=0), stages)
    for other in (resumed, again):
        assert all(torch.equal(whole.best_state[k], other.best_state[k]) for k in whole.best_state)
        assert np.array_equal(whole.validation_logits_NC, other.validation_logits_NC)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_text_never_depends_on_its_batch_mates(problem, name: str) -> None:
    student, pool = build(name, seed=0), problem.validation
    assert (pool.lengths == 0).any() and (pool.lengths == 1).any()
    kept = {"pad_id": 0, "device": "cpu", "breathe": lambda: None}
    together = compute_logits(student, pool, **kept)
    alone = compute_logits(student, pool, **kept, batch_size=1)
    shuffled = np.random.default_rng(0).permutation(len(pool)).astype(np.int64)
    mixed = compute_logits(student, take(pool, shuffled), **kept, batch_size=7)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[shuffled], mixed, atol=1e-5)
