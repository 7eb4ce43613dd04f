"""torch's ONNX exporter, for modules that do not draw their own graph: slow, and made silent."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

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


def export(module: nn.Module) -> bytes:
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
