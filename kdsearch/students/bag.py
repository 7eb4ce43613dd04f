"""Bag: the mean of the word vectors and one hidden layer; the low-latency end, blind to word order."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack

from torch import Tensor, nn

from kdsearch.core.space import Choice, Param, Range, Space
from kdsearch.data.batches import Output
from kdsearch.students.base import InputShape
from kdsearch.students.words import WordParams, WordStudent, draw_mean_vector, mean_vector, word_space

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph


class Bag(WordStudent):
    """Averaged embeddings and a small multi-layer perceptron."""

    NAME = "bag"
    SPACE: ClassVar[Space] = {
        **word_space(embed_dim=Choice((64, 128, 256))),
        "hidden": Param(kind="int", default=Choice((64, 128)), low=1, high=4096, architecture=True),
        "dropout": Param(kind="float", default=Range(0.0, 0.5), low=0.0, high=0.95),
    }

    def __init__(
        self, shape: InputShape, *, hidden: int, dropout: float, **words: Unpack[WordParams]
    ) -> None:
        super().__init__(shape, **words)
        self.width = hidden
        self.layer = nn.Linear(self.embedding.columns, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, shape.num_labels)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the hidden layer."""
        mean_BE = mean_vector(self.embed(input_ids_BT, attention_mask_BT), attention_mask_BT)
        hidden_BD = self.layer(self.dropout(mean_BE)).relu()
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)

    def draw(self, graph: Graph) -> str:
        """As `forward`."""
        mean_BE = draw_mean_vector(graph, self.draw_embed(graph))
        return graph.linear(self.classifier, graph.node("Relu", graph.linear(self.layer, mean_BE)))
