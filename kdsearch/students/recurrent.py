"""An LSTM that reads a text either way: how it starts, and how a padded text is reversed.

Letters as in `base`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def new_lstm(width: int, hidden: int) -> nn.LSTM:
    """Orthogonal recurrences, and forget gates that begin open."""
    lstm = nn.LSTM(width, hidden, batch_first=True)
    weights = dict(lstm.named_parameters())
    with torch.no_grad():
        nn.init.xavier_uniform_(weights["weight_ih_l0"])
        for gate in weights["weight_hh_l0"].chunk(4):
            nn.init.orthogonal_(gate)
        for name in ("bias_ih_l0", "bias_hh_l0"):
            nn.init.zeros_(weights[name])
        weights["bias_ih_l0"][hidden : 2 * hidden] = 1.0  # torch's order: input, forget, cell, output
    return lstm


def reverse(values_BTD: Tensor, lengths_B: Tensor) -> Tensor:
    """Each row reversed within its length; what lies behind is unspecified."""
    positions_T = torch.arange(values_BTD.shape[1], device=values_BTD.device)
    source_BT = (lengths_B.unsqueeze(1) - 1 - positions_T).clamp(min=0)
    return values_BTD.gather(1, source_BT.unsqueeze(2).expand_as(values_BTD))
