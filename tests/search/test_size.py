"""How large a space is, counted by hand."""

from __future__ import annotations

from typing import Any

from kdsearch.core.spec import StudySpec
from kdsearch.search.plan import Plan
from kdsearch.search.size import SpaceSize, space_size


def size(**sections: Any) -> SpaceSize:
    given = {
        "version": 1,
        "name": "size",
        "data": {"train": "a.csv", "validation": "b.csv"},
        "teacher": {"model": "t"},
        "training": {"learning_rate": 1e-3, "batch_size": 32},
        **sections,
    }
    return space_size(Plan(StudySpec.model_validate(given)))


BAG = {
    "type": "bag",
    "embedding": "random",
    "vocabulary": "teacher",
    "channels": "non-static",
    "dropout": 0.1,
}
OFFLINE = {"type": "offline", "pools": "train", "lambda": 0.5}


def test_choices_and_integer_ranges_multiply() -> None:
    found = size(
        students=[{**BAG, "embed_dim": [32, 64], "hidden": {"min": 32, "max": 128, "step": 32}}],
        schemes=[{**OFFLINE, "loss": "mse"}],
    )
    assert found == SpaceSize(combinations=2 * 4 * 2, architectures=2 * 4, real=())


def test_what_exists_beside_others_alone_counts_there() -> None:
    students = [{**BAG, "embed_dim": 32, "hidden": 32}]
    temperature = {"type": "offline", "pools": "train", "lambda": 0.5, "temperature": [1, 2, 4]}
    assert size(students=students, schemes=[{**temperature, "loss": "kl"}]).combinations == 1 + 3
    assert size(students=students, schemes=[{**temperature, "loss": ["kl", "mse"]}]).combinations == 1 + 3 + 1


def test_students_and_schemes_and_training() -> None:
    students = [
        {**BAG, "embed_dim": 32, "hidden": [16, 32]},
        {"type": "bert_small", "init": "config", "layers": 1, "hidden": 64, "dropout": 0.1},
    ]
    training = {"learning_rate": [1e-3, 2e-3], "batch_size": [16, 32, 64]}
    found = size(students=students, schemes=["none"], training=training)
    assert found.combinations == (2 + 1) * 1 * 2 * 3
    assert found.architectures == 3


def test_real_parameters_are_named() -> None:
    found = size(
        students=[{**BAG, "embed_dim": 32, "hidden": 32, "dropout": {"min": 0.0, "max": 0.5}}],
        schemes=[{**OFFLINE, "loss": "mse", "lambda": {"min": 0.1, "max": 1.0, "step": 0.1}}],
        training={"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}, "batch_size": 32},
    )
    assert found.real == ("bag.dropout", "learning_rate")
    assert found.combinations == 1 + 10
