"""BiLSTM (Tang et al. 2019): one direction reads the text forwards, the other backwards.

Notable: the backward direction is a forward LSTM over the text reversed within its own length, so that no
padding is read before the text. That needs no packed sequence and trains twice as fast on a CPU.
With `input: sentence_mean` it reads one vector, the average of the text's word vectors: its recurrent
weights then never meet a state, and stand still.
Letters beside those of `base`: H hidden units of a direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack, cast

import torch
from torch import Tensor, nn

from kdsearch.core.space import Choice, Fixed, Param, Range, Space
from kdsearch.data.batches import Output
from kdsearch.students.base import InputShape, lengths
from kdsearch.students.pooling import POOLINGS, Pooling
from kdsearch.students.recurrent import new_lstm, reverse
from kdsearch.students.words import WordParams, WordStudent, draw_mean_vector, mean_vector, word_space

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph


class BiLSTM(WordStudent):
    """Bidirectional LSTM over word vectors, pooled over the text, one linear layer."""

    NAME = "bilstm"
    SPACE: ClassVar[Space] = {
        "hidden": Param(kind="int", default=Choice((64, 128, 256)), low=1, high=4096, architecture=True),
        "layers": Param(kind="int", default=Fixed(1), low=1, high=8, architecture=True),
        **word_space(embed_dim=Choice((64, 128))),
        "input": Param(
            kind="str", default=Fixed("tokens"), allowed=("tokens", "sentence_mean"), architecture=True
        ),
        "pooling": Param(
            kind="str",
            default=Choice(("max", "attention")),
            allowed=tuple(POOLINGS),
            architecture=True,
            when=("input", "tokens"),
        ),
        "dropout": Param(kind="float", default=Range(0.0, 0.5), low=0.0, high=0.95),
    }

    def __init__(
        self,
        shape: InputShape,
        *,
        hidden: int,
        layers: int,
        input: str,
        dropout: float,
        pooling: str = "last",  # of the one state there is, where the input is the mean
        **words: Unpack[WordParams],
    ) -> None:
        super().__init__(shape, **words)
        self.width = 2 * hidden
        self.averaged = input == "sentence_mean"
        widths = [self.embedding.columns, *[self.width] * (layers - 1)]
        self.forwards = nn.ModuleList(new_lstm(width, hidden) for width in widths)
        self.backwards = nn.ModuleList(new_lstm(width, hidden) for width in widths)
        for lstm in (*self.forwards, *self.backwards):
            lstm.get_parameter("weight_hh_l0").requires_grad_(not self.averaged)
        self.pooling: Pooling = POOLINGS[pooling](self.width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.width, shape.num_labels)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the pooled states of both directions."""
        states_BTD, lengths_B = self.embed(input_ids_BT, attention_mask_BT), lengths(attention_mask_BT)
        if self.averaged:
            states_BTD = mean_vector(states_BTD, attention_mask_BT).unsqueeze(1)
            lengths_B = torch.ones_like(lengths_B)
        for ahead, back in zip(self.forwards, self.backwards, strict=True):
            states_BTD = self.dropout(states_BTD)
            backward_BTH = reverse(back(reverse(states_BTD, lengths_B))[0], lengths_B)
            states_BTD = torch.cat([ahead(states_BTD)[0], backward_BTH], dim=2)
        hidden_BD = self.pooling(states_BTD, lengths_B)
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)

    def draw(self, graph: Graph) -> str:
        """As `forward`, with ONNX's own bidirectional LSTM told the lengths."""
        words_BTE, lengths_B = self.draw_embed(graph), graph.lengths()
        if self.averaged:
            states_TBD = graph.unsqueeze(draw_mean_vector(graph, words_BTE), 0)
            lengths_B = graph.node("Min", lengths_B, graph.constant([1]))
        else:
            states_TBD = graph.node("Transpose", words_BTE, perm=[1, 0, 2])
        for ahead, back in zip(self.forwards, self.backwards, strict=True):
            states_TBD = graph.bilstm(cast(nn.LSTM, ahead), cast(nn.LSTM, back), states_TBD, lengths_B)
        hidden_BD = self.pooling.draw(graph, states_TBD, lengths_B)
        return graph.linear(self.classifier, hidden_BD)
