"""From a name and parameters to a student, and from a student to a folder and back.

A saved student is `model.safetensors` (its weights and id table) and `student.json` (what rebuilds it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import ArtifactError
from kdsearch.core.space import Fixed, Scalar
from kdsearch.students import STUDENTS
from kdsearch.students.base import Given, InputShape, Student, Wants

FORMAT = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "student.json"


@dataclass(frozen=True)
class SavedStudent:
    """A student read back, and the names of its classes in the order of its logits."""

    student: Student
    labels: tuple[str, ...]


def completed(name: str, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """With what is left out and has a fixed default: a stored student lacks what was added after it."""
    values = dict(params)
    for key, param in STUDENTS[name].SPACE.items():
        if key not in values and isinstance(param.default, Fixed) and param.exists(values):
            values[key] = param.default.value
    return values


def _checked(name: str, params: Mapping[str, Scalar]) -> dict[str, Any]:
    """The completed parameters, if they are exactly those of the student and legal."""
    space, values = STUDENTS[name].SPACE, completed(name, params)
    exist = {key for key, param in space.items() if param.exists(values)}
    unknown, missing = sorted(values.keys() - exist), sorted(exist - values.keys())
    if unknown or missing:
        raise ValueError(f"student {name!r}: parameters that do not exist {unknown}, missing {missing}")
    for key, value in values.items():
        if not space[key].accepts(value):
            raise ValueError(f"{name}.{key} is {value!r}, expected {space[key].expected()}")
    return values


def wants(name: str, params: Mapping[str, Scalar]) -> Wants:
    """What such a student is to be given."""
    return STUDENTS[name].wants(completed(name, params))


def own_part(name: str, params: Mapping[str, Scalar], shape: InputShape) -> InputShape:
    """The shape without what such a student is not given."""
    needs = wants(name, params)
    return replace(
        shape,
        embedding_width=0 if needs.embedding == "random" else shape.embedding_width,
        encoder=shape.encoder if needs.encoder else None,
    )


def build_student(
    name: str,
    params: Mapping[str, Scalar],
    shape: InputShape,
    id_table: npt.NDArray[np.int64] | None,
    *,
    seed: int = 0,
    given: Given | None = None,
) -> Student:
    """A fresh student on the CPU; equal seeds give equal weights, and nobody else's generator moves.

    ``id_table`` is (vocab_size,); None maps an id to itself as far as the embedding goes. Without ``given``
    a student that wants pre-trained weights has random ones: enough to time it, or to fill it afterwards.
    """
    checked = _checked(name, params)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = STUDENTS[name](own_part(name, params, shape), **checked)
    student.params = checked
    if id_table is not None:
        if id_table.shape != (shape.vocab_size,):
            raise ValueError(f"the id table has shape {id_table.shape}, the tokenizer {shape.vocab_size} ids")
        if id_table.min() < 0 or id_table.max() >= shape.num_tokens:
            raise ValueError(f"the id table leaves the {shape.num_tokens} rows of the embedding")
        student.id_table.copy_(torch.from_numpy(id_table.astype(np.int64)))
    if given is not None:
        student.adopt(given)
    return student


def architecture_key(name: str, params: Mapping[str, Scalar], shape: InputShape) -> str:
    """SHA-256 of what the latency depends on: two students with one key take equally long."""
    space = STUDENTS[name].SPACE
    architecture = {key: value for key, value in completed(name, params).items() if space[key].architecture}
    own = asdict(own_part(name, params, shape))
    return sha256_of({"format": FORMAT, "student": name, "params": architecture, "shape": own})


def save_student(student: Student, folder: Path, labels: tuple[str, ...]) -> None:
    """Write the student into a folder, which is created if need be."""
    if len(labels) != student.shape.num_labels:
        raise ValueError(f"{len(labels)} labels for {student.shape.num_labels} logits")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    description = {
        "format": FORMAT,
        "student": student.NAME,
        "params": student.params,
        "shape": asdict(student.shape),
        "labels": labels,
    }
    # Sorted, so that equal students are equal bytes wherever their parameters came from.
    text = json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def load_student(folder: Path) -> SavedStudent:
    """Read what `save_student` wrote; in evaluation mode, on the CPU.

    Raises ArtifactError where a file is missing, damaged, or of a newer kdsearch.
    """
    try:
        saved = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if saved["format"] != FORMAT or saved["student"] not in STUDENTS:
            raise ArtifactError(
                f"{folder}: student {saved['student']!r} of format {saved['format']} is unknown here",
                hint="A newer kdsearch wrote it: upgrade this one.",
            )
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["params"].items()}
        student = build_student(saved["student"], params, InputShape.from_json(saved["shape"]), None)
        student.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"{folder} does not hold a student that can be read: {error}") from error
    return SavedStudent(student.eval(), tuple(saved["labels"]))
