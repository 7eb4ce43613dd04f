"""The ONNX runtime: a module as an ONNX file under onnxruntime on the CPU, which is what gets deployed."""

from __future__ import annotations

from torch import nn

from kdsearch.core.errors import UsageError
from kdsearch.core.spec import LatencySpec
from kdsearch.measure.exporter import export
from kdsearch.measure.runtimes.base import FloatArray, IntArray, Prepared, Runner, num_params


def to_onnx(module: nn.Module) -> bytes:
    """The module as an ONNX file: `input_ids`, `attention_mask` (B, T) int64 -> `logits` (B, C) float32.

    A module with `onnx_model()` draws itself in milliseconds; any other takes torch's exporter, and seconds.
    """
    draw = getattr(module, "onnx_model", None)
    drawn: bytes | None = draw() if draw is not None else None
    return drawn if drawn is not None else export(module)


def load(model: bytes, *, threads: int) -> Runner:
    """A function that runs the ONNX file on `threads` CPU threads."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            "onnxruntime is not installed, and CPU latency is measured with it",
            hint='pip install "kdsearch[onnx]"',
        ) from error
    options = onnxruntime.SessionOptions()
    # Left alone, onnxruntime counts the host's cores and ignores a container's limit.
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(input_ids_BT: IntArray, attention_mask_BT: IntArray) -> FloatArray:
        logits: FloatArray = session.run(
            ["logits"], {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT}
        )[0]
        return logits

    return run


class OnnxRuntime:
    """onnxruntime on the CPU."""

    def prepare(self, module: nn.Module, spec: LatencySpec) -> Prepared:
        """Convert and load."""
        model = to_onnx(module)
        return Prepared(load(model, threads=spec.threads), len(model) / 1e6, num_params(module))
