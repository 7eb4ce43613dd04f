"""Word vectors of a student: random, the teacher's word pieces, or those of a file; in one channel or two.

Notable:
- Channels are those of Kim 2014: `static` vectors stay as given, `non-static` ones are trained, and
  `multichannel` is both side by side, each filter having weights for both.
- The row of padding is zero and stays so.
Letters beside those of `base`: V rows of the table here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor, nn

from kdsearch.core.facts import Facts
from kdsearch.core.space import Choice, Dimension, Fixed, Param, Scalar, Space
from kdsearch.data.tokens import PADDING
from kdsearch.students.base import Given, InputShape, Student, Wants, lengths

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph

EMBEDDING_STD = 0.1
"""N(0, 1), torch's default, is too large beside the steps of Adam: rare words keep their random vectors."""


class WordParams(TypedDict, total=False):
    """Parameters that every student of word vectors has."""

    embedding: str
    vocabulary: str
    embed_dim: int
    channels: str


def word_space(embed_dim: Dimension, channels: tuple[str, ...] = ("static", "non-static")) -> Space:
    """The parameters of `WordParams`. Two channels take longer than one; static or trained is all one."""
    return {
        "embedding": Param(
            kind="str",
            default=Fixed("random"),
            allowed=("random", "teacher", "vectors"),
            architecture=True,
            doc="where the word vectors start from",
        ),
        "vocabulary": Param(
            kind="str",
            default=Fixed("teacher"),
            allowed=("teacher", "words", "characters"),
            architecture=True,
            when=("embedding", ("random", "vectors")),
            doc="what is a token: as the teacher's tokenizer cuts, a word, or a character",
        ),
        "embed_dim": Param(
            kind="int", default=embed_dim, low=1, high=4096, architecture=True, when=("embedding", "random")
        ),
        "channels": Param(
            kind="str",
            default=Choice(channels),
            allowed=channels,
            architecture="multichannel" in channels,
            when=("embedding", ("teacher", "vectors")),
            doc="given vectors as they are, trained, or both side by side (Kim 2014)",
        ),
    }


class WordTable(nn.Embedding):
    """A row of vectors for each token that occurs."""

    fixed: nn.Parameter | None
    """(V, E): the second channel, which is not trained."""

    def __init__(self, num_tokens: int, width: int, channels: str) -> None:
        super().__init__(num_tokens, width, padding_idx=PADDING)
        nn.init.normal_(self.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.weight[PADDING] = 0.0
        self.weight.requires_grad_(channels != "static")
        second = nn.Parameter(self.weight.detach().clone(), requires_grad=False)
        self.register_parameter("fixed", second if channels == "multichannel" else None)

    @property
    def columns(self) -> int:
        """Of all channels together."""
        return self.embedding_dim * (1 if self.fixed is None else 2)

    def fill(self, vectors_VE: Tensor) -> None:
        """Start every channel from the same vectors."""
        if vectors_VE.shape != self.weight.shape:
            raise ValueError(f"word vectors {tuple(vectors_VE.shape)} for {tuple(self.weight.shape)}")
        for table_VE in self.parameters():
            table_VE.data.copy_(vectors_VE)
            table_VE.data[PADDING] = 0.0

    def forward(self, rows_BT: Tensor) -> Tensor:
        """Vectors of the tokens, the channels side by side."""
        trained = super().forward(rows_BT)
        return trained if self.fixed is None else torch.cat([trained, self.fixed[rows_BT]], dim=-1)

    def side_by_side(self) -> Tensor:
        """All channels as one table: what a graph looks up once."""
        return self.weight if self.fixed is None else torch.cat([self.weight, self.fixed], dim=1)


class WordStudent(Student):
    """A student that reads word vectors."""

    def __init__(self, shape: InputShape, **words: Unpack[WordParams]) -> None:
        super().__init__(shape)
        width = words["embed_dim"] if words["embedding"] == "random" else shape.embedding_width
        if not width:
            raise ValueError(f"word vectors of the {words['embedding']}, but the shape says no width of them")
        self.embedding = WordTable(shape.num_tokens, width, words.get("channels", "non-static"))

    @classmethod
    def space(cls, facts: Facts) -> Space:
        """Without the word vectors that the study does not have."""
        widths = {"teacher": facts.teacher_width, "vectors": facts.vector_width}
        allowed = ("random", *(origin for origin, width in widths.items() if width is not None))
        return {**cls.SPACE, "embedding": replace(cls.SPACE["embedding"], allowed=allowed)}

    @classmethod
    def wants(cls, params: Mapping[str, Scalar]) -> Wants:
        """As its parameters say."""
        return Wants(str(params.get("vocabulary", "teacher")), params["embedding"], "")  # type: ignore[arg-type]

    def adopt(self, given: Given) -> None:
        """Start from the given vectors, if there are any."""
        if given.embedding_VE is not None:
            self.embedding.fill(torch.from_numpy(given.embedding_VE))

    def embed(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Vectors (B, T, E) of the tokens, zero on padding; E counts the columns of all channels."""
        vectors_BTE: Tensor = self.embedding(self.id_table[input_ids_BT])
        return vectors_BTE * attention_mask_BT.unsqueeze(-1).to(vectors_BTE.dtype)

    def draw_embed(self, graph: Graph) -> str:
        """As `embed`."""
        mask_BT1 = graph.unsqueeze(graph.float_mask(), 2)
        return graph.embed(self.id_table, self.embedding.side_by_side(), mask_BT1)


def mean_vector(vectors_BTE: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """The average (B, E) over the tokens of a text, of vectors that are zero on padding."""
    return vectors_BTE.sum(1) / lengths(attention_mask_BT).unsqueeze(1)


def draw_mean_vector(graph: Graph, vectors_BTE: str) -> str:
    """As `mean_vector`."""
    lengths_B1 = graph.unsqueeze(graph.as_float(graph.lengths()), 1)
    return graph.node("Div", graph.reduce("ReduceSum", vectors_BTE, 1), lengths_B1)
