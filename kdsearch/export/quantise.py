"""ONNX int8 by onnxruntime's dynamic quantisation: 8-bit weights, activations quantised as they come.

Notable:
- The embedding is most of a student's bytes, and is looked up in 8 bits, then scaled: exact for each text.
- Dense, convolutional and recurrent layers quantise what flows into them with one scale for the whole batch,
  so that the texts of a batch, and their padding, move each other's logits: texts are run one at a time.
- onnxruntime's ConvInteger takes twice as long with signed weights as with unsigned ones (tried), so
  convolutions are quantised in a pass of their own.
- The last layer stays in float32: it is a thousandth of the bytes, and every logit goes through it.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdsearch.core.errors import KdsearchError

UNSIGNED = ("Conv",)
SIGNED = ("Gather", "MatMul", "Gemm", "LSTM")
QUANTISED = (
    "DequantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeLinear",
)
"""Operators that only a quantised graph has."""


def quantise(model: bytes) -> bytes:
    """The same graph with 8-bit weights."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise KdsearchError("onnxruntime is not installed", hint='pip install "kdsearch[onnx]"') from error
    passes = ((UNSIGNED, QuantType.QUInt8), (SIGNED, QuantType.QInt8))
    with tempfile.TemporaryDirectory(prefix="kdsearch-int8-") as folder, _quiet():
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        for number, (operators, kind) in enumerate(passes):
            made, last = Path(folder) / f"{number}.onnx", _classifier(path.read_bytes())
            quantize_dynamic(
                path, made, op_types_to_quantize=list(operators), weight_type=kind, nodes_to_exclude=last
            )
            path = made
        return path.read_bytes()


def operators(model: bytes) -> Mapping[str, int]:
    """How many operators of each quantised kind a graph has."""
    counts = Counter(node.op_type for node in _graph(model).node)
    return {kind: counts[kind] for kind in QUANTISED if counts[kind]}


def _classifier(model: bytes) -> list[str]:
    """The dense layer that is run last, also under the name that quantising gives it."""
    dense = [node.name for node in _graph(model).node if node.op_type in ("Gemm", "MatMul")]
    return [dense[-1], f"{dense[-1]}_MatMul"]


def _graph(model: bytes) -> Any:
    import onnx

    return onnx.load_from_string(model).graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice on pre-processing, and warnings about operators whose shapes onnx cannot infer."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)
