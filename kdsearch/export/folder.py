"""The files of an exported student: weights and config.json for transformers, tokenizer, ONNX graph."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save
from transformers import PreTrainedTokenizerFast

from kdsearch.export.manifest import MODEL, ONNX, TOKENIZER
from kdsearch.measure.runtimes.onnx import to_onnx
from kdsearch.students.base import Student
from kdsearch.students.building import SavedStudent, build_student

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PREFIX = "student."
"""Of every weight's name: the Student is that attribute of the transformers model."""


def write_student(folder: Path, saved: SavedStudent, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write everything that loads the student; nothing of it is checked here."""
    _write_weights(folder, saved.student)
    config = config_json(saved, closing_tokens=closing_tokens(tokenizer.backend_tokenizer))
    (folder / "config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    _write_tokenizer(folder, tokenizer, saved.student.shape.max_length)
    (folder / ONNX).parent.mkdir()
    (folder / ONNX).write_bytes(to_onnx(saved.student))


def _write_weights(folder: Path, student: Student) -> None:
    tensors = {PREFIX + name: tensor.clone() for name, tensor in student.state_dict().items()}
    # Not save_file: it makes a file that nobody but its owner may read.
    (folder / MODEL).write_bytes(save(tensors, metadata={"format": "pt"}))


def reload_student(folder: Path, saved: SavedStudent) -> Student:
    """The student again, from nothing but the exported weights."""
    student = build_student(saved.student.NAME, saved.student.params, saved.student.shape, None)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / MODEL).items()}
    student.load_state_dict(tensors)
    return student


def config_json(saved: SavedStudent, *, closing_tokens: int) -> dict[str, Any]:
    """config.json, as `kdsearch.hf` reads it."""
    return {
        "model_type": "kdsearch_student",
        "architectures": ["KdsearchStudent"],
        "dtype": "float32",
        "student": saved.student.NAME,
        "student_params": dict(saved.student.params),
        "shape": asdict(saved.student.shape),
        "closing_tokens": closing_tokens,
        "pad_token_id": saved.student.shape.pad_id,
        "id2label": {str(i): label for i, label in enumerate(saved.labels)},
        "label2id": {label: i for i, label in enumerate(saved.labels)},
        "problem_type": "single_label_classification",
    }


def closing_tokens(tokenizer: Tokenizer) -> int:
    """How many special tokens end a text: [SEP] is one. They stay when a text is cut."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    mask: list[int] = tokenizer.encode("a text").special_tokens_mask
    inside = [i for i, special in enumerate(mask) if not special]
    return len(mask) - 1 - inside[-1] if inside else 0


def _write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
    """tokenizer.json cuts by itself, so that whoever loads it alone cuts as the training did."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        **tokenizer.special_tokens_map,
    ).save_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length)
    backend.save(str(folder / TOKENIZER))
