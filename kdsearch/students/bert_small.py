"""BertSmall: a BERT encoder of few and narrow layers, trained from random weights.

Notable: one head per 32 columns, as in MiniLM; the classifier reads the mean of the last states, which
learns faster from scratch than a [CLS] state does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from kdsearch.core.space import Choice, Param, Range, Space
from kdsearch.data.batches import Output
from kdsearch.students.base import InputShape, Student, first_always, lengths

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph

COLUMNS_PER_HEAD = 32


def num_heads(hidden: int) -> int:
    """As many heads of at least 32 columns as divide the width evenly."""
    most = max(1, hidden // COLUMNS_PER_HEAD)
    return next(heads for heads in range(most, 0, -1) if hidden % heads == 0)


class BertSmall(Student):
    """A small BERT over the tokens that occur, averaged over the text, one linear layer."""

    NAME = "bert_small"
    SPACE: ClassVar[Space] = {
        "layers": Param(kind="int", default=Choice((1, 2)), low=1, high=24, architecture=True),
        "hidden": Param(kind="int", default=Choice((64, 128)), low=4, high=2048, architecture=True),
        "dropout": Param(kind="float", default=Range(0.0, 0.3), low=0.0, high=0.95),
    }

    def __init__(self, shape: InputShape, *, layers: int, hidden: int, dropout: float) -> None:
        from transformers import BertConfig, BertModel  # seconds to import

        super().__init__(shape)
        config = BertConfig(
            vocab_size=shape.num_tokens,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=num_heads(hidden),
            intermediate_size=4 * hidden,
            max_position_embeddings=shape.max_length,
            type_vocab_size=1,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, shape.num_labels)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the mean of the last states."""
        mask_BT = first_always(attention_mask_BT)
        states_BTD = self.encoder(self.id_table[input_ids_BT], mask_BT.long()).last_hidden_state
        total_BD = (states_BTD * mask_BT.unsqueeze(2)).sum(1)
        hidden_BD = total_BD / lengths(attention_mask_BT).unsqueeze(1)
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)

    def draw(self, graph: Graph) -> str:
        """As `forward`."""
        from kdsearch.students.onnx_bert import attention_bias, draw_embeddings, draw_layer

        lengths_B = graph.lengths()
        is_token_BT = graph.is_token(lengths_B)
        bias_B11T = attention_bias(graph, is_token_BT)
        states_BTD = draw_embeddings(graph, self.encoder.embeddings, graph.compact_ids(self.id_table))
        for layer in self.encoder.encoder.layer:
            states_BTD = draw_layer(graph, layer, states_BTD, bias_B11T)
        mask_BT1 = graph.unsqueeze(graph.as_float(is_token_BT), 2)
        total_BD = graph.reduce("ReduceSum", graph.node("Mul", states_BTD, mask_BT1), 1)
        mean_BD = graph.node("Div", total_BD, graph.unsqueeze(graph.as_float(lengths_B), 1))
        return graph.linear(self.classifier, mean_BD)
