"""Runtimes: what executes a module while it is timed. One file a runtime."""

from __future__ import annotations

from kdsearch.measure.runtimes.base import Runtime
from kdsearch.measure.runtimes.onnx import OnnxRuntime
from kdsearch.measure.runtimes.torch import TorchRuntime

RUNTIMES: dict[str, Runtime] = {
    "onnx": OnnxRuntime(),
    "torch": TorchRuntime(),
}
