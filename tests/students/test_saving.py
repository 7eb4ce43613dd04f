"""A student in a folder: readable whatever the locale, whenever it was written; what is damaged says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kdsearch.core.errors import ArtifactError
from kdsearch.students import base
from kdsearch.students.base import InputShape, Student
from kdsearch.students.building import architecture_key, build_student, completed, load_student, save_student

SHAPE = InputShape(vocab_size=9, num_tokens=9, num_labels=3, max_length=8, pad_id=0)
FIRST: dict[str, dict[str, Any]] = {
    "bag": {"embed_dim": 4, "hidden": 4, "dropout": 0.0},
    "textcnn": {"filters": 4, "kernel_sizes": [2, 3], "embed_dim": 4, "dropout": 0.0},
    "bilstm": {"hidden": 4, "layers": 1, "embed_dim": 4, "pooling": "attention", "dropout": 0.0},
    "bert_small": {"layers": 1, "hidden": 8, "dropout": 0.0},
}
"""What the first version wrote."""
FIRST_WEIGHTS = {
    "bag": ["classifier", "embedding", "layer"],
    "textcnn": ["classifier", "convolutions", "embedding"],
    "bilstm": ["backwards", "classifier", "embedding", "forwards", "pooling"],
    "bert_small": ["classifier", "encoder"],
}


def build(name: str) -> Student:
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in FIRST[name].items()}
    return build_student(name, params, SHAPE, None)


@pytest.mark.parametrize("name", FIRST)
def test_a_student_of_the_first_version_is_read_and_takes_as_long_as_a_new_one(
    name: str, tmp_path: Path
) -> None:
    student = build(name)
    save_student(student, tmp_path, ("a", "b", "c"))
    shape = {"vocab_size": 9, "num_tokens": 9, "num_labels": 3, "max_length": 8, "pad_id": 0}
    change(tmp_path, params=FIRST[name], shape=shape)
    assert sorted({n.split(".")[0] for n in student.state_dict()} - {"id_table"}) == FIRST_WEIGHTS[name]
    again = load_student(tmp_path).student
    ids = torch.arange(8).view(2, 4)
    with torch.no_grad():
        answers = [s.eval()(ids, torch.ones_like(ids)).logits_BC for s in (student, again)]
    assert torch.equal(*answers)
    assert again.params == student.params == completed(name, again.params)
    assert architecture_key(name, again.params, again.shape) == architecture_key(
        name, {k: v for k, v in student.params.items() if k in FIRST[name]}, SHAPE
    )


def test_a_saved_student_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """Python says where a file's encoding is left to the locale: there `垃圾` could not be written."""
    code = (
        "import sys; from pathlib import Path; from kdsearch.students import building as b;"
        "from kdsearch.students.base import InputShape;"
        "shape = InputShape(vocab_size=9, num_tokens=9, num_labels=2, max_length=8, pad_id=0);"
        "bag = b.build_student('bag', {'embed_dim': 4, 'hidden': 4, 'dropout': 0.0}, shape, None);"
        "b.save_student(bag, Path(sys.argv[1]), ('好', '垃圾'));"
        "assert b.load_student(Path(sys.argv[1])).labels == ('好', '垃圾')"
    )
    strict = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning:kdsearch.students.building"]
    environment = {**os.environ, "PYTHONPATH": str(Path(base.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *strict, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def lose_description(folder: Path) -> None:
    (folder / "student.json").unlink()


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])


def change(folder: Path, **values: object) -> None:
    path = folder / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_description, "student.json"),
        (cut_weights, "does not hold a student"),
        (lambda folder: change(folder, student="transducer"), "'transducer'"),
        (lambda folder: change(folder, format=99), "format 99"),
        (lambda folder: change(folder, params={}), "missing"),
    ],
)
def test_a_damaged_folder_is_an_artifact_error(damage: object, message: str, tmp_path: Path) -> None:
    save_student(build("bag"), tmp_path, ("a", "b", "c"))
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=message):
        load_student(tmp_path)


def test_labels_must_be_as_many_as_logits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 labels for 3 logits"):
        save_student(build("bag"), tmp_path, ("a", "b"))
