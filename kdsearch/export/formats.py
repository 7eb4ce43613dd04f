"""Formats: what an exported folder can hold, each with its files; asked for as a comma list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsearch.core.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Format:
    """One way to load a student."""

    files: tuple[str, ...]
    """The files that only this format has."""
    doc: str


HF, ONNX, INT8, TORCH = "hf", "onnx", "onnx-int8", "torch"
TORCH_FOLDER = "pytorch"
"""Not `torch`: beside predict.py such a folder passes for the package where that is not installed."""
FORMATS: dict[str, Format] = {
    HF: Format(
        ("config.json", "model.safetensors", "tokenizer_config.json"),
        "transformers: config.json and model.safetensors",
    ),
    ONNX: Format(("onnx/model.onnx",), "onnxruntime, float32"),
    INT8: Format(("onnx/model_int8.onnx",), "onnxruntime, 8-bit weights: smaller, measured apart"),
    TORCH: Format(
        ("pytorch/model.safetensors", "pytorch/student.json", "pytorch/student.py"),
        "torch without transformers and kdsearch: weights, and the code that rebuilds the student",
    ),
}
DEFAULT = (HF, ONNX)


def parse(text: str) -> tuple[str, ...]:
    """``hf,onnx`` as names, in the order of FORMATS; UsageError where one is unknown or none is given."""
    return checked([part.strip() for part in text.split(",") if part.strip()])


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once, in the order of FORMATS."""
    for name in names:
        if name not in FORMATS:
            near = did_you_mean(name, FORMATS)
            raise UsageError(
                f"there is no export format {name!r}", hint=near or f"one or more of {','.join(FORMATS)}"
            )
    if not names:
        raise UsageError("no export format is given", hint=f"one or more of {','.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names)
