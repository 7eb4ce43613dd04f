"""TextCNN (Kim 2014): n-gram detectors of several widths, each maximised over the text.

Notable: every position holds one window ("same" padding), so that a text shorter than the kernel has
windows too; windows centred on padding are zeroed before the maximum, which with
the ReLU is exactly leaving them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Unpack, cast

import torch
from torch import Tensor, nn

from kdsearch.core.space import Choice, Param, Range, Space
from kdsearch.data.batches import Output
from kdsearch.students.base import InputShape
from kdsearch.students.words import WordParams, WordStudent, word_space

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph

CHANNELS = ("static", "non-static", "multichannel")


def _sides(kernel_size: int) -> tuple[int, int]:
    """Zeros before and after the text that give one window a position."""
    return (kernel_size - 1) // 2, kernel_size // 2


class TextCNN(WordStudent):
    """Convolutions over word vectors, masked maximum, one linear layer."""

    NAME = "textcnn"
    SPACE: ClassVar[Space] = {
        "filters": Param(kind="int", default=Choice((64, 128, 256)), low=1, high=4096, architecture=True),
        "kernel_sizes": Param(
            kind="ints", default=Choice(((2, 3, 4), (3, 4, 5))), low=1, high=64, architecture=True
        ),
        **word_space(embed_dim=Choice((64, 128)), channels=CHANNELS),
        "dropout": Param(kind="float", default=Range(0.0, 0.5), high=0.95, low=0.0),
    }

    def __init__(
        self,
        shape: InputShape,
        *,
        filters: int,
        kernel_sizes: tuple[int, ...],
        dropout: float,
        **words: Unpack[WordParams],
    ) -> None:
        super().__init__(shape, **words)
        self.width = filters * len(kernel_sizes)
        columns = self.embedding.columns
        self.convolutions = nn.ModuleList(nn.Conv1d(columns, filters, size) for size in kernel_sizes)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.width, shape.num_labels)
        self._sides = [_sides(size) for size in kernel_sizes]

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the concatenated maxima."""
        vectors_BET = self.embed(input_ids_BT, attention_mask_BT).transpose(1, 2)
        vectors_BET = self.dropout(vectors_BET)
        windows = [
            convolve(nn.functional.pad(vectors_BET, sides))
            for convolve, sides in zip(self.convolutions, self._sides, strict=True)
        ]
        windows_BDT = torch.cat(windows, dim=1) * attention_mask_BT.unsqueeze(1)
        hidden_BD = windows_BDT.amax(2).relu()
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)

    def draw(self, graph: Graph) -> str:
        """As `forward`."""
        mask_BT = graph.float_mask()
        vectors_BET = graph.node("Transpose", self.draw_embed(graph), perm=[0, 2, 1])
        windows = [
            graph.convolution(cast(nn.Conv1d, layer), vectors_BET, sides)
            for layer, sides in zip(self.convolutions, self._sides, strict=True)
        ]
        windows_BDT = graph.node("Mul", graph.node("Concat", *windows, axis=1), graph.unsqueeze(mask_BT, 1))
        hidden_BD = graph.node("Relu", graph.reduce("ReduceMax", windows_BDT, 2))
        return graph.linear(self.classifier, hidden_BD)
