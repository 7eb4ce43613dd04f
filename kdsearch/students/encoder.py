"""A BERT encoder for a student: made from a shape, or with the layers and the cut tables of a given one.

Notable: what is taken over is exact. Every row of the word table is the average of the ids that share it, so
that a token that occurs keeps its vector; the position table is cut to the longest text, and where every
layer is taken, the states are those of the given encoder.
Letters beside those of `base`: here V rows of the word table, not ids; D columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdsearch.core.errors import DataError
from kdsearch.data.tokens import PADDING
from kdsearch.students.base import EncoderShape, InputShape

if TYPE_CHECKING:
    from transformers import BertModel

TANH_GELU = ("Gelu", {"approximate": "tanh"})
ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_python": ("Gelu", {}),
    "gelu_new": TANH_GELU,
    "gelu_fast": TANH_GELU,
    "gelu_pytorch_tanh": TANH_GELU,
    "gelu_python_tanh": TANH_GELU,
    "relu": ("Relu", {}),
}
"""By the name in a configuration, the ONNX operator and its attributes."""
COLUMNS_PER_HEAD = 32


def num_heads(hidden: int) -> int:
    """As many heads of at least 32 columns as divide the width evenly."""
    most = max(1, hidden // COLUMNS_PER_HEAD)
    return next(heads for heads in range(most, 0, -1) if hidden % heads == 0)


def own_shape(hidden: int, layers: int, max_length: int) -> EncoderShape:
    """Of an encoder that is taken from nowhere."""
    return EncoderShape(
        hidden=hidden,
        layers=layers,
        heads=num_heads(hidden),
        intermediate=4 * hidden,
        max_positions=max_length,
        layer_norm_eps=1e-12,
        activation="gelu",
    )


SHAPE_KEYS = {
    "hidden_size": "hidden",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "intermediate",
    "max_position_embeddings": "max_positions",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_act": "activation",
}
"""Key of a configuration -> field of EncoderShape."""


def encoder_shape(folder: Path) -> EncoderShape:
    """The architecture of the BERT in a folder; DataError unless a student can take layers from it."""
    config = _config(folder)
    _refuse(folder, "model_type", config.get("model_type"), ("bert",))
    _refuse(folder, "hidden_act", config.get("hidden_act", "gelu"), tuple(ACTIVATIONS))
    _refuse(
        folder, "position_embedding_type", config.get("position_embedding_type", "absolute"), ("absolute",)
    )
    _refuse(folder, "is_decoder", config.get("is_decoder", False), (False,))
    from transformers import BertConfig  # knows the defaults of what a configuration leaves out

    full = BertConfig(**{key: config[key] for key in config if key in SHAPE_KEYS})
    return EncoderShape(**{field: getattr(full, key) for key, field in SHAPE_KEYS.items()})


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: no config.json that can be read ({error})", hint="give the folder of a BERT"
        ) from error
    if not isinstance(config, dict):
        raise DataError(f"{folder}/config.json is no JSON object", hint="give the folder of a BERT")
    return config


def _refuse(folder: Path, key: str, value: object, possible: Sequence[object]) -> None:
    if value not in possible:
        raise DataError(
            f"{folder}: `{key}` is {value!r}, and a bert_small takes layers from a BERT with "
            + " or ".join(map(repr, possible)),
            hint="let bert_small start from its own configuration (`init: config`), or give another encoder",
        )


def new_encoder(encoder: EncoderShape, shape: InputShape, *, layers: int, dropout: float) -> BertModel:
    """A fresh encoder over the tokens and the positions that occur."""
    from transformers import BertConfig, BertModel  # seconds to import

    if shape.max_length > encoder.max_positions:
        raise DataError(
            f"texts have up to {shape.max_length} tokens, the encoder {encoder.max_positions} positions",
            hint="lower `teacher.max_length`, or give an encoder of longer texts",
        )
    config = BertConfig(
        vocab_size=shape.num_tokens,
        hidden_size=encoder.hidden,
        num_hidden_layers=layers,
        num_attention_heads=encoder.heads,
        intermediate_size=encoder.intermediate,
        hidden_act=encoder.activation,
        layer_norm_eps=encoder.layer_norm_eps,
        max_position_embeddings=shape.max_length,
        type_vocab_size=1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=PADDING,
    )
    return BertModel(config, add_pooling_layer=False)


def take_over(encoder: BertModel, folder: Path, *, id_table: Tensor, numbers: Sequence[int]) -> None:
    """Fill the encoder from the one in the folder: layers `numbers`, counted from 1, and the tables."""
    given = _load(folder)
    if given.config.vocab_size < len(id_table):
        raise DataError(
            f"{folder}: {given.config.vocab_size} word vectors for a tokenizer of {len(id_table)} ids",
            hint="the encoder must read the tokens of the teacher's tokenizer",
        )
    own, source = encoder.embeddings, given.embeddings
    with torch.no_grad():
        words_VD = averaged(source.word_embeddings.weight, id_table, own.word_embeddings.num_embeddings)
        own.word_embeddings.weight.copy_(words_VD)
        own.word_embeddings.weight[PADDING] = 0.0
        for table in ("position_embeddings", "token_type_embeddings"):
            rows = getattr(own, table).num_embeddings
            getattr(own, table).weight.copy_(getattr(source, table).weight[:rows])
    own.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
    for layer, number in zip(encoder.encoder.layer, numbers, strict=True):
        layer.load_state_dict(given.encoder.layer[number - 1].state_dict())


def averaged(vectors_ID: Tensor, id_table: Tensor, num_rows: int) -> Tensor:
    """(num_rows, D): the average of the vectors of all ids that share a row; zero where none does."""
    counts = torch.bincount(id_table, minlength=num_rows).clamp(min=1)
    rows_VD = vectors_ID.new_zeros(num_rows, vectors_ID.shape[1])
    rows_VD.index_add_(0, id_table, vectors_ID[: len(id_table)].detach())
    return rows_VD / counts.unsqueeze(1)


def _load(folder: Path) -> BertModel:
    """The encoder in the folder, be it alone or part of a classifier; safetensors only."""
    from transformers import BertModel

    try:
        with _quiet():
            given, info = BertModel.from_pretrained(
                folder,
                add_pooling_layer=False,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{folder}: its encoder cannot be read: {str(error).splitlines()[0]}",
            hint="give a folder with config.json and *.safetensors, as save_pretrained() writes it",
        ) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise DataError(
            f"{folder}: weights of its encoder are missing: {missing[0]} and {len(missing) - 1} more",
            hint="give a folder as save_pretrained() writes it",
        )
    loaded: BertModel = given
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' load reports: a classifier's head is left behind on purpose."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
