"""What every student is: token ids and mask in, logits and pooled vector out, and an ONNX graph of its own.

Letters: B texts of a batch, T tokens, E embedding width, D width of the pooled vector, C classes,
V ids of the teacher's tokenizer.
A mask is ones on tokens, then zeros on padding. The same text gives the same output in any padding and batch;
a text without any token counts as one token whose vector is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from kdsearch.core.errors import UsageError
from kdsearch.core.space import Scalar, Space
from kdsearch.data.batches import Output

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph

EMBEDDING_STD = 0.1
"""N(0, 1), torch's default, is too large beside the steps of Adam: rare words keep their random vectors."""


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """What a student is handed; with its parameters, everything that fixes its architecture."""

    vocab_size: int
    """Ids of the teacher's tokenizer."""
    num_tokens: int
    """Rows of the embedding: the tokens that occur in training, padding and unknown included."""
    num_labels: int
    max_length: int
    pad_id: int


class Student(nn.Module):
    """A small text classifier; a variant is one subclass in one file and its entry in STUDENTS."""

    NAME: ClassVar[str]
    SPACE: ClassVar[Space]
    params: Mapping[str, Scalar]
    """What `build_student` was given."""
    id_table: Tensor
    """(V,) int64: tokenizer id -> row of the embedding."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.shape = shape
        self.params = {}
        self.register_buffer("id_table", torch.arange(shape.vocab_size).clamp_(max=shape.num_tokens - 1))

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the pooled vector that the classifier reads."""
        raise NotImplementedError

    def draw(self, graph: Graph) -> str | None:
        """Add this student's nodes to the graph and return the name of its logits.

        None: this student has no graph of its own, and torch's exporter is used.
        """
        return None

    def new_embedding(self, width: int) -> nn.Embedding:
        """A trainable table with a row for each token that occurs."""
        embedding = nn.Embedding(self.shape.num_tokens, width)
        nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
        return embedding

    def embed(self, embedding: nn.Embedding, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Vectors (B, T, E) of the tokens, zero on padding."""
        vectors_BTE: Tensor = embedding(self.id_table[input_ids_BT])
        return vectors_BTE * attention_mask_BT.unsqueeze(-1).to(vectors_BTE.dtype)

    def onnx_model(self) -> bytes | None:
        """This student as an ONNX file: `input_ids`, `attention_mask` (B, T) int64 -> `logits` (B, C)."""
        try:
            from kdsearch.students.onnx_graph import Graph
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{error.name} is not installed, and a student becomes an ONNX file with it",
                hint='pip install "kdsearch[onnx]"',
            ) from error
        graph = Graph()
        logits = self.draw(graph)
        return None if logits is None else graph.to_bytes(logits, num_labels=self.shape.num_labels)


def lengths(attention_mask_BT: Tensor) -> Tensor:
    """Number of tokens (B,), at least 1."""
    return attention_mask_BT.sum(1).clamp(min=1)


def first_always(attention_mask_BT: Tensor) -> Tensor:
    """The mask as booleans with the first column true, so that no row is empty."""
    positions_T = torch.arange(attention_mask_BT.shape[1], device=attention_mask_BT.device)
    return (attention_mask_BT > 0) | (positions_T == 0)
