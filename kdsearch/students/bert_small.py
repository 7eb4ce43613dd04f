"""BertSmall: a small BERT encoder: narrow from random weights, or layers of a given one.

Notable: one head per 32 columns, as in MiniLM; the classifier reads the mean of the last states, which
learns faster from scratch than a [CLS] state does. With `init: teacher` it starts from every k-th layer of
the teacher, with `init: checkpoint` from all layers of the study's encoder; both keep the given width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from kdsearch.core.facts import Facts
from kdsearch.core.space import Choice, Fixed, Param, Range, Scalar, Space
from kdsearch.data.batches import Output
from kdsearch.students.base import Given, InputShape, Student, Wants, first_always, lengths
from kdsearch.students.encoder import new_encoder, own_shape, take_over

if TYPE_CHECKING:
    from kdsearch.students.onnx_graph import Graph

INITS = ("config", "teacher", "checkpoint")
OWN = ("init", "config")


class BertSmall(Student):
    """A small BERT over the tokens that occur, averaged over the text, one linear layer."""

    NAME = "bert_small"
    SPACE: ClassVar[Space] = {
        "init": Param(kind="str", default=Fixed("config"), allowed=INITS, architecture=True),
        "layers": Param(kind="int", default=Choice((1, 2)), low=1, high=24, architecture=True, when=OWN),
        "hidden": Param(kind="int", default=Choice((64, 128)), low=4, high=2048, architecture=True, when=OWN),
        "every": Param(
            kind="int", default=Choice((2, 3)), low=1, high=24, architecture=True, when=("init", "teacher")
        ),
        "dropout": Param(kind="float", default=Range(0.0, 0.3), low=0.0, high=0.95),
    }

    def __init__(
        self,
        shape: InputShape,
        *,
        init: str,
        dropout: float,
        layers: int = 0,
        hidden: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__(shape)
        encoder = own_shape(hidden, layers, shape.max_length) if init == "config" else shape.encoder
        if encoder is None or every > encoder.layers:
            raise ValueError(f"bert_small with init {init!r} and every {every}: the shape says {encoder}")
        self.width = encoder.hidden
        self.taken = range(every, encoder.layers + 1, every)
        self.encoder = new_encoder(encoder, shape, layers=len(self.taken), dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.width, shape.num_labels)

    @classmethod
    def space(cls, facts: Facts) -> Space:
        """Without the encoders that the study does not have, and no step longer than the teacher."""
        has = {"config": True, "teacher": facts.bert_teacher, "checkpoint": facts.encoder_layers is not None}
        init = replace(cls.SPACE["init"], allowed=tuple(origin for origin, there in has.items() if there))
        if not facts.bert_teacher or facts.teacher_layers is None:
            return {**cls.SPACE, "init": init}
        steps = tuple(step for step in (2, 3) if step <= facts.teacher_layers) or (1,)
        every = replace(cls.SPACE["every"], high=facts.teacher_layers, default=Choice(steps))
        return {**cls.SPACE, "init": init, "every": every}

    @classmethod
    def wants(cls, params: Mapping[str, Scalar]) -> Wants:
        """As `init` says."""
        return Wants("teacher", "random", "" if params["init"] == "config" else params["init"])  # type: ignore[arg-type]

    def adopt(self, given: Given) -> None:
        """Take over the tables and the layers, if there is an encoder to take them from."""
        if given.encoder is not None:
            take_over(self.encoder, given.encoder, id_table=self.id_table, numbers=self.taken)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits and the mean of the last states."""
        mask_BT = first_always(attention_mask_BT)
        rows_BT = self.id_table[input_ids_BT] * attention_mask_BT  # 0 is padding
        states_BTD = self.encoder(rows_BT, mask_BT.long()).last_hidden_state
        total_BD = (states_BTD * mask_BT.unsqueeze(2)).sum(1)
        hidden_BD = total_BD / lengths(attention_mask_BT).unsqueeze(1)
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)

    def draw(self, graph: Graph) -> str:
        """As `forward`."""
        from kdsearch.students.onnx_bert import draw_mean_states

        rows_BT = graph.masked_rows(self.id_table)
        return graph.linear(self.classifier, draw_mean_states(graph, self.encoder, rows_BT))
