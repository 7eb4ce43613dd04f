"""From the states of all tokens to one vector per text; padding never takes part.

Letters beside those of `base`: H = D / 2, the width of one direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph

LOWEST = -1e9
"""Stands for minus infinity on padding; finite, so that no arithmetic makes it NaN."""


def _padding(states_BTD: Tensor, lengths_B: Tensor) -> Tensor:
    """True (B, T, 1) behind the end of each text."""
    positions_T = torch.arange(states_BTD.shape[1], device=states_BTD.device)
    return (positions_T >= lengths_B.unsqueeze(1)).unsqueeze(2)


def _is_token(graph: Graph, lengths_B: str) -> str:
    """True (T, B, 1) on the tokens of each text."""
    return graph.unsqueeze(graph.node("Transpose", graph.is_token(lengths_B), perm=[1, 0]), 2)


class Pooling(nn.Module):
    """States (B, T, D) and lengths (B,), each at least 1, to (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, states_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Pool."""
        raise NotImplementedError

    def draw(self, graph: Graph, states_TBD: str, lengths_B: str) -> str:
        """As `forward`; the graph's states have the tokens first, and are zero on padding."""
        raise NotImplementedError


class Maximum(Pooling):
    """The largest value of each unit."""

    def forward(self, states_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Pool."""
        return states_BTD.masked_fill(_padding(states_BTD, lengths_B), LOWEST).amax(1)

    def draw(self, graph: Graph, states_TBD: str, lengths_B: str) -> str:
        """As `forward`."""
        lowered_TBD = graph.node("Where", _is_token(graph, lengths_B), states_TBD, graph.constant(LOWEST))
        return graph.reduce("ReduceMax", lowered_TBD, 0)


class Mean(Pooling):
    """The average of each unit."""

    def forward(self, states_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Pool."""
        total_BD = states_BTD.masked_fill(_padding(states_BTD, lengths_B), 0.0).sum(1)
        return total_BD / lengths_B.unsqueeze(1)

    def draw(self, graph: Graph, states_TBD: str, lengths_B: str) -> str:
        """As `forward`."""
        total = graph.reduce("ReduceSum", states_TBD, 0)
        return graph.node("Div", total, graph.unsqueeze(graph.as_float(lengths_B), 1))


class Last(Pooling):
    """Where each direction ends: the last token forwards, the first one backwards."""

    def forward(self, states_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Pool."""
        half = self.width // 2
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        return torch.cat([states_BTD[rows_B, lengths_B - 1, :half], states_BTD[:, 0, half:]], dim=1)

    def draw(self, graph: Graph, states_TBD: str, lengths_B: str) -> str:
        """As `forward`."""
        last_B1 = graph.unsqueeze(graph.node("Sub", lengths_B, graph.constant([1])), 1)
        states_BTD = graph.node("Transpose", states_TBD, perm=[1, 0, 2])
        half, end = graph.constant([self.width // 2]), graph.constant([self.width])
        start, axis = graph.constant([0]), graph.constant([1])
        ahead = graph.node(
            "Slice", graph.node("GatherND", states_BTD, last_B1, batch_dims=1), start, half, axis
        )
        first = graph.node("Gather", states_TBD, graph.constant(0), axis=0)
        return graph.node("Concat", ahead, graph.node("Slice", first, half, end, axis), axis=1)


class Attention(Pooling):
    """A weighted average; one learned vector scores the states."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, states_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Pool."""
        scores_BT1: Tensor = self.score(states_BTD).masked_fill(_padding(states_BTD, lengths_B), LOWEST)
        return (states_BTD * scores_BT1.softmax(1)).sum(1)

    def draw(self, graph: Graph, states_TBD: str, lengths_B: str) -> str:
        """As `forward`."""
        scores_TB1 = graph.node("MatMul", states_TBD, graph.tensor(self.score.weight.T))
        lowered_TB1 = graph.node("Where", _is_token(graph, lengths_B), scores_TB1, graph.constant(LOWEST))
        weights = graph.node("Softmax", lowered_TB1, axis=0)
        return graph.reduce("ReduceSum", graph.node("Mul", states_TBD, weights), 0)


POOLINGS: dict[str, type[Pooling]] = {
    "last": Last,
    "max": Maximum,
    "mean": Mean,
    "attention": Attention,
}
