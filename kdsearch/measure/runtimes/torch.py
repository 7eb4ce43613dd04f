"""The torch runtime: the module itself on a device, each query until its logits are back on the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from kdsearch.core.spec import LatencySpec
from kdsearch.measure.runtimes.base import FloatArray, IntArray, Prepared, num_params


class TorchRuntime:
    """torch without compilation, in float32."""

    def prepare(self, module: nn.Module, spec: LatencySpec) -> Prepared:
        """Move the module to the device, in evaluation mode."""
        device = torch.device(spec.device)
        module = module.to(device).eval()
        stored = [*module.parameters(), *module.buffers()]

        @torch.inference_mode()
        def run(input_ids_BT: IntArray, attention_mask_BT: IntArray) -> FloatArray:
            query = (torch.from_numpy(a).to(device) for a in (input_ids_BT, attention_mask_BT))
            logits: FloatArray = module(*query)[0].float().cpu().numpy()  # .cpu() waits for the device
            return np.ascontiguousarray(logits)

        return Prepared(run, sum(t.nbytes for t in stored) / 1e6, num_params(module))
