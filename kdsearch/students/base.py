"""What every student is: token ids and mask in, logits and pooled vector out, and an ONNX graph of its own.

Letters: B texts of a batch, T tokens, E embedding width, D width of the pooled vector, C classes,
V ids of the tokenizer.
A mask is ones on tokens, then zeros on padding. The same text gives the same output in any padding and batch;
a text without any token counts as one token whose vector is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.core.errors import UsageError
from kdsearch.core.facts import Facts
from kdsearch.core.space import Scalar, Space
from kdsearch.data.batches import Output

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """The architecture of a BERT encoder that a student takes layers from."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    max_positions: int
    layer_norm_eps: float
    activation: str
    """As transformers calls it: `gelu`, `gelu_new`..."""


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """What a student is handed; with its parameters, everything that fixes its architecture."""

    vocab_size: int
    """Ids of the tokenizer whose tokens the student reads."""
    num_tokens: int
    """Rows of the embedding: the tokens that occur in training, padding and unknown included."""
    num_labels: int
    max_length: int
    pad_id: int
    embedding_width: int = 0
    """Columns of the given word vectors; 0 where the student starts from none."""
    encoder: EncoderShape | None = None
    """Of the given encoder; None where the student starts from none."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputShape:
        """From what `dataclasses.asdict` gave, also after a trip through JSON text."""
        encoder = data.get("encoder")
        return cls(**{**data, "encoder": None if encoder is None else EncoderShape(**encoder)})


class Wants(NamedTuple):
    """What a student with certain parameters is to be given."""

    vocabulary: str
    """Whose tokens it reads: `teacher`, `words` or `characters`."""
    embedding: Literal["random", "teacher", "vectors"]
    """Where its word vectors start from."""
    encoder: Literal["", "teacher", "checkpoint"]
    """Where its encoder starts from; empty where it starts from none."""


@dataclass(frozen=True)
class Given:
    """Pre-trained weights that a student starts from."""

    embedding_VE: npt.NDArray[np.float32] | None = None
    """Word vectors (num_tokens, E); the row of padding is not looked at."""
    encoder: Path | None = None
    """Folder of a transformers BERT that reads the same tokens."""


class Refusal(NamedTuple):
    """Why a study cannot have a student."""

    message: str
    expected: str


class Student(nn.Module):
    """A small text classifier; a variant is one subclass in one file and its entry in STUDENTS."""

    NAME: ClassVar[str]
    SPACE: ClassVar[Space]
    """All it could ever be asked for. A parameter that is added later has a fixed default, which is what
    students did before: stored ones lack it."""
    params: Mapping[str, Scalar]
    """Every parameter that exists, as `build_student` was given it or by default."""
    width: int
    """D."""
    id_table: Tensor
    """(V,) int64: tokenizer id -> row of the embedding."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.shape = shape
        self.params = {}
        self.register_buffer("id_table", torch.arange(shape.vocab_size).clamp_(max=shape.num_tokens - 1))

    @classmethod
    def space(cls, facts: Facts) -> Space:
        """`SPACE` narrowed to what a study offers."""
        return cls.SPACE

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """Why a study cannot have it; None if it can."""
        return None

    @classmethod
    def wants(cls, params: Mapping[str, Scalar]) -> Wants:
        """What it is to be given beside legal parameters."""
        return Wants("teacher", "random", "")

    def adopt(self, given: Given) -> None:
        """Take over pre-trained weights; called once, when the id table is in place."""

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the pooled vector that the classifier reads."""
        raise NotImplementedError

    def draw(self, graph: Graph) -> str | None:
        """Add this student's nodes to the graph and return the name of its logits.

        None: this student has no graph of its own, and torch's exporter is used.
        """
        return None

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
