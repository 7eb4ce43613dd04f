"""The files of an exported student: one writer a format, and what every format needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save
from transformers import PreTrainedTokenizerFast

from kdsearch.export import standalone
from kdsearch.export.formats import HF, INT8, ONNX, TORCH, TORCH_FOLDER
from kdsearch.export.manifest import MODEL, TOKENIZER
from kdsearch.export.quantise import quantise
from kdsearch.export.sources import modeling_source, student_source
from kdsearch.export.standalone import RUNTIMES
from kdsearch.measure.runtimes.onnx import to_onnx
from kdsearch.students.base import InputShape, Student
from kdsearch.students.building import SavedStudent, build_student, save_student

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PREFIX = "student."
"""Of every weight's name: the Student is that attribute of the transformers model."""
MODELING = "modeling_kdsearch.py"
AUTO_MAP = {
    "AutoConfig": "modeling_kdsearch.KdsearchConfig",
    "AutoModelForSequenceClassification": "modeling_kdsearch.KdsearchStudent",
}


@dataclass(frozen=True)
class Parcel:
    """What is written."""

    saved: SavedStudent
    tokenizer: PreTrainedTokenizerFast
    work: Path
    """A folder for what is made on the way."""
    self_contained: bool = False

    @property
    def float32(self) -> Path:
        """The ONNX graph that int8 is made from and compared with."""
        return self.work / "float32.onnx"


def write_parcel(folder: Path, parcel: Parcel, formats: Sequence[str]) -> None:
    """Write the formats and what all of them need; nothing of it is checked here."""
    max_length = parcel.saved.student.shape.max_length
    if any(name in RUNTIMES for name in formats):
        parcel.float32.write_bytes(to_onnx(parcel.saved.student))
        _copy_predict(folder)
    for name in formats:
        WRITERS[name](folder, parcel)
    backend = parcel.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length)
    # tokenizer.json cuts by itself, so that whoever loads it alone cuts as the training did
    backend.save(str(folder / TOKENIZER))


def _copy_predict(folder: Path) -> None:
    source = Path(standalone.__file__).read_text(encoding="utf-8")
    (folder / "predict.py").write_text(source, encoding="utf-8")


def _write_hf(folder: Path, parcel: Parcel) -> None:
    saved, tokenizer = parcel.saved, parcel.tokenizer
    _write_weights(folder, saved.student)
    config = config_json(saved, closing_tokens=closing_tokens(tokenizer.backend_tokenizer))
    if parcel.self_contained:
        config["auto_map"] = AUTO_MAP
        (folder / MODELING).write_text(modeling_source(saved.student), encoding="utf-8")
    (folder / "config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=saved.student.shape.max_length,
        model_input_names=["input_ids", "attention_mask"],
        **tokenizer.special_tokens_map,
    ).save_pretrained(folder)


def _write_onnx(folder: Path, parcel: Parcel) -> None:
    path = folder / RUNTIMES[ONNX].file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(parcel.float32.read_bytes())


def _write_int8(folder: Path, parcel: Parcel) -> None:
    path = folder / RUNTIMES[INT8].file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(quantise(parcel.float32.read_bytes()))


def _write_torch(folder: Path, parcel: Parcel) -> None:
    made, to, student = parcel.work / TORCH_FOLDER, folder / TORCH_FOLDER, parcel.saved.student
    save_student(student, made, parcel.saved.labels)
    to.mkdir()
    for path in made.iterdir():
        (to / path.name).write_bytes(path.read_bytes())  # not copied: save_file's are for the owner alone
    (to / "student.py").write_text(student_source(student), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Parcel], None]] = {
    HF: _write_hf,
    ONNX: _write_onnx,
    INT8: _write_int8,
    TORCH: _write_torch,
}


def _write_weights(folder: Path, student: Student) -> None:
    tensors = {PREFIX + name: tensor.clone() for name, tensor in student.state_dict().items()}
    # Not save_file: it makes a file that nobody but its owner may read.
    (folder / MODEL).write_bytes(save(tensors, metadata={"format": "pt"}))


def reload_student(folder: Path, saved: SavedStudent) -> Student:
    """The student again, from nothing but the exported weights."""
    student = build_student(saved.student.NAME, saved.student.params, saved.student.shape, None)
    _fill(student, folder)
    return student


def read_student(folder: Path) -> Student:
    """The student from nothing but config.json and the weights for transformers."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in config["student_params"].items()}
    student = build_student(config["student"], params, InputShape.from_json(config["shape"]), None)
    _fill(student, folder)
    return student


def _fill(student: Student, folder: Path) -> None:
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / MODEL).items()}
    student.load_state_dict(tensors)


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
