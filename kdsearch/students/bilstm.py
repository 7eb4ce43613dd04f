"""BiLSTM (Tang et al. 2019): one direction reads the text forwards, the other backwards.

Notable: the backward direction is a forward LSTM over the text reversed within its own length, so that no
padding is read before the text. That needs no packed sequence and trains twice as fast on a CPU.
Letters beside those of `base`: H hidden units of a direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from kdsearch.core.space import Choice, Fixed, Param, Range, Space
from kdsearch.data.batches import Output
from kdsearch.students.base import InputShape, Student, lengths
from kdsearch.students.pooling import POOLINGS, Pooling

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph


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


class BiLSTM(Student):
    """Bidirectional LSTM over word vectors, pooled over the text, one linear layer."""

    NAME = "bilstm"
    SPACE: ClassVar[Space] = {
        "hidden": Param(kind="int", default=Choice((64, 128, 256)), low=1, high=4096, architecture=True),
        "layers": Param(kind="int", default=Fixed(1), low=1, high=8, architecture=True),
        "embed_dim": Param(kind="int", default=Choice((64, 128)), low=1, high=4096, architecture=True),
        "pooling": Param(
            kind="str", default=Choice(("max", "attention")), allowed=tuple(POOLINGS), architecture=True
        ),
        "dropout": Param(kind="float", default=Range(0.0, 0.5), low=0.0, high=0.95),
    }

    def __init__(
        self, shape: InputShape, *, hidden: int, layers: int, embed_dim: int, pooling: str, dropout: float
    ) -> None:
        super().__init__(shape)
        self.embedding = self.new_embedding(embed_dim)
        widths = [embed_dim, *[2 * hidden] * (layers - 1)]
        self.forwards = nn.ModuleList(new_lstm(width, hidden) for width in widths)
        self.backwards = nn.ModuleList(new_lstm(width, hidden) for width in widths)
        self.pooling: Pooling = POOLINGS[pooling](2 * hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * hidden, shape.num_labels)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the pooled states of both directions."""
        states_BTD = self.embed(self.embedding, input_ids_BT, attention_mask_BT)
        lengths_B = lengths(attention_mask_BT)
        for ahead, back in zip(self.forwards, self.backwards, strict=True):
            states_BTD = self.dropout(states_BTD)
            backward_BTH = reverse(back(reverse(states_BTD, lengths_B))[0], lengths_B)
            states_BTD = torch.cat([ahead(states_BTD)[0], backward_BTH], dim=2)
        hidden_BD = self.pooling(states_BTD, lengths_B)
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)

    def draw(self, graph: Graph) -> str:
        """As `forward`, with ONNX's own bidirectional LSTM told the lengths."""
        states_BTD = graph.embed(self.id_table, self.embedding, graph.unsqueeze(graph.float_mask(), 2))
        states_TBD = graph.node("Transpose", states_BTD, perm=[1, 0, 2])
        lengths_B = graph.lengths()
        for ahead, back in zip(self.forwards, self.backwards, strict=True):
            states_TBD = graph.bilstm(cast(nn.LSTM, ahead), cast(nn.LSTM, back), states_TBD, lengths_B)
        hidden_BD = self.pooling.draw(graph, states_TBD, lengths_B)
        return graph.linear(self.classifier, hidden_BD)
