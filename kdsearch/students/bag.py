"""Bag: the mean of the word vectors and one hidden layer; the low-latency end, blind to word order."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from kdsearch.core.space import Choice, Param, Range, Space
from kdsearch.data.batches import Output
from kdsearch.students.base import InputShape, Student, lengths

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph


class Bag(Student):
    """Averaged embeddings and a small multi-layer perceptron."""

    NAME = "bag"
    SPACE: ClassVar[Space] = {
        "embed_dim": Param(kind="int", default=Choice((64, 128, 256)), low=1, high=4096, architecture=True),
        "hidden": Param(kind="int", default=Choice((64, 128)), low=1, high=4096, architecture=True),
        "dropout": Param(kind="float", default=Range(0.0, 0.5), low=0.0, high=0.95),
    }

    def __init__(self, shape: InputShape, *, embed_dim: int, hidden: int, dropout: float) -> None:
        super().__init__(shape)
        self.embedding = self.new_embedding(embed_dim)
        self.layer = nn.Linear(embed_dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, shape.num_labels)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the hidden layer."""
        vectors_BTE = self.embed(self.embedding, input_ids_BT, attention_mask_BT)
        mean_BE = vectors_BTE.sum(1) / lengths(attention_mask_BT).unsqueeze(1)
        hidden_BD = self.layer(self.dropout(mean_BE)).relu()
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)

    def draw(self, graph: Graph) -> str:
        """As `forward`."""
        mask_BT1 = graph.unsqueeze(graph.float_mask(), 2)
        vectors_BTE = graph.embed(self.id_table, self.embedding, mask_BT1)
        lengths_B1 = graph.unsqueeze(graph.as_float(graph.lengths()), 1)
        mean_BE = graph.node("Div", graph.reduce("ReduceSum", vectors_BTE, 1), lengths_B1)
        return graph.linear(self.classifier, graph.node("Relu", graph.linear(self.layer, mean_BE)))
