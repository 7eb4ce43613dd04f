"""Exported students as transformers models: the configuration, and a PreTrainedModel around a Student.

Letters: B texts of a batch, T tokens, L the longest text in tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kdsearch.core.space import Scalar
from kdsearch.students.base import InputShape
from kdsearch.students.building import build_student

SMALLEST = {"vocab_size": 2, "num_tokens": 2, "num_labels": 2, "max_length": 4, "pad_id": 0}
"""transformers compares a configuration with one made without arguments."""


class KdsearchConfig(PreTrainedConfig):  # type: ignore[misc]
    """config.json of an exported student."""

    model_type = "kdsearch_student"

    def __init__(
        self,
        student: str = "bag",
        student_params: Mapping[str, Any] | None = None,
        shape: Mapping[str, Any] | None = None,
        closing_tokens: int = 0,
        **kwargs: Any,
    ) -> None:
        self.student = student
        self.student_params = dict(student_params or {})
        self.shape = dict(shape or SMALLEST)
        self.closing_tokens = closing_tokens
        super().__init__(**kwargs)

    def params(self) -> dict[str, Scalar]:
        """The student's parameters; JSON has no tuples."""
        return {k: tuple(v) if isinstance(v, list) else v for k, v in self.student_params.items()}


class KdsearchStudent(PreTrainedModel):  # type: ignore[misc]
    """A distilled student; `save_pretrained` and `from_pretrained` as for any transformers model."""

    config_class = KdsearchConfig
    base_model_prefix = "student"
    main_input_name = "input_ids"

    def __init__(self, config: KdsearchConfig) -> None:
        super().__init__(config)
        self.student = build_student(
            config.student, config.params(), InputShape.from_json(config.shape), None
        )
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Logits (B, C), with cross-entropy where labels are given; `token_type_ids` are not looked at."""
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        ids_BL, mask_BL = shorten(
            input_ids, mask_BT, max_length=self.config.shape["max_length"], closing=self.config.closing_tokens
        )
        logits_BC = self.student(ids_BL, mask_BL).logits_BC
        loss = None if labels is None else nn.functional.cross_entropy(logits_BC, labels)
        if return_dict is False:
            return (logits_BC,) if loss is None else (loss, logits_BC)
        return SequenceClassifierOutput(loss=loss, logits=logits_BC)


def shorten(ids_BT: Tensor, mask_BT: Tensor, *, max_length: int, closing: int) -> tuple[Tensor, Tensor]:
    """As the tokenizer cuts a text: its first tokens, then the `closing` special tokens of the whole text.

    A pipeline does not truncate unless told to; the answer must not depend on it.
    """
    if ids_BT.shape[1] <= max_length:
        return ids_BT, mask_BT
    lengths_B1 = mask_BT.sum(dim=1, keepdim=True)
    columns_L = torch.arange(max_length, device=ids_BT.device).expand(len(ids_BT), -1)
    from_end = (lengths_B1 > max_length) & (columns_L >= max_length - closing)
    source_BL = torch.where(from_end, lengths_B1 - max_length + columns_L, columns_L)
    return ids_BT.gather(1, source_BL), mask_BT[:, :max_length]
