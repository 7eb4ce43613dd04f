"""The ONNX runtime: a module as an ONNX file under onnxruntime on the CPU, which is what gets deployed."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kdsearch.core.errors import UsageError
from kdsearch.core.spec import LatencySpec
from kdsearch.measure.runtimes.base import FloatArray, IntArray, Prepared, Runner, num_params

INPUTS = ("input_ids", "attention_mask")
OPSET = 20


class _Logits(nn.Module):
    """The first output alone: nobody deploys the hidden vectors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.module(input_ids, attention_mask)[0]
        return logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress on stdout, stderr, by warnings and by logging."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(disabled)


def _export(module: nn.Module) -> bytes:
    """By torch's exporter.

    The example is 2 by 2 at least, since 0 and 1 would be taken as constants, and two tensors, since one that
    stands twice would be taken as a single input.
    """
    device = next(module.parameters()).device
    ids, mask = (torch.ones((2, 4), dtype=torch.int64, device=device) for _ in range(2))
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    was_training = module.training
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Logits(module).eval(),
            (ids, mask),
            dynamo=True,
            dynamic_shapes=(axes, axes),
            input_names=INPUTS,
            output_names=["logits"],
            opset_version=OPSET,
        )
    module.train(was_training)
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def to_onnx(module: nn.Module) -> bytes:
    """The module as an ONNX file: `input_ids`, `attention_mask` (B, T) int64 -> `logits` (B, C) float32.

    A module with `onnx_model()` draws itself in milliseconds; any other takes torch's exporter, and seconds.
    """
    draw = getattr(module, "onnx_model", None)
    drawn: bytes | None = draw() if draw is not None else None
    return drawn if drawn is not None else _export(module)


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
