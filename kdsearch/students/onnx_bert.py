"""A transformers BERT as ONNX nodes: onnxruntime's own fusions then find it.

Letters beside those of `base`: H heads, K columns of a head.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer, BertModel

from kdsearch.students.encoder import ACTIVATIONS
from kdsearch.students.onnx_graph import Graph

LOWEST = -1e9


def draw_mean_states(graph: Graph, encoder: BertModel, rows_BT: str) -> str:
    """The mean (B, D) over the tokens of the last states, from rows of the encoder's word table."""
    lengths_B = graph.lengths()
    is_token_BT = graph.is_token(lengths_B)
    states_BTD = draw_encoder(graph, encoder, rows_BT, attention_bias(graph, is_token_BT))
    mask_BT1 = graph.unsqueeze(graph.as_float(is_token_BT), 2)
    total_BD = graph.reduce("ReduceSum", graph.node("Mul", states_BTD, mask_BT1), 1)
    return graph.node("Div", total_BD, graph.unsqueeze(graph.as_float(lengths_B), 1))


def draw_encoder(graph: Graph, encoder: BertModel, rows_BT: str, bias_B11T: str) -> str:
    """Last states (B, T, D) of all layers."""
    activation = ACTIVATIONS[encoder.config.hidden_act]
    states_BTD = draw_embeddings(graph, encoder.embeddings, rows_BT)
    for layer in encoder.encoder.layer:
        states_BTD = draw_layer(graph, layer, states_BTD, bias_B11T, activation)
    return states_BTD


def attention_bias(graph: Graph, is_token_BT: str) -> str:
    """(B, 1, 1, T): zero on tokens, very low on padding."""
    bias_BT = graph.node("Where", is_token_BT, graph.constant(0.0), graph.constant(LOWEST))
    return graph.unsqueeze(bias_BT, 1, 2)


def draw_embeddings(graph: Graph, embeddings: BertEmbeddings, rows_BT: str) -> str:
    """States (B, T, D) before the first layer; every token has type 0."""
    places = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
    words_BTD = graph.node("Gather", graph.tensor(embeddings.word_embeddings.weight), rows_BT)
    num_T = graph.node("Shape", rows_BT, start=1, end=2)
    places_TD = graph.node("Slice", graph.tensor(places), graph.constant([0]), num_T, graph.constant([0]))
    return _layer_norm(graph, embeddings.LayerNorm, graph.node("Add", words_BTD, places_TD))


def draw_layer(
    graph: Graph, layer: BertLayer, states_BTD: str, bias_B11T: str, activation: tuple[str, dict[str, str]]
) -> str:
    """States (B, T, D) after the layer; `activation` is an operator and its attributes."""
    mixed_BTD = _attend(graph, layer, states_BTD, bias_B11T)
    after = layer.attention.output
    states_BTD = _close(graph, after.dense, after.LayerNorm, mixed_BTD, states_BTD)
    inner = _dense(graph, layer.intermediate.dense.weight, layer.intermediate.dense.bias, states_BTD)
    operator, attributes = activation
    inner = graph.node(operator, inner, **attributes)
    return _close(graph, layer.output.dense, layer.output.LayerNorm, inner, states_BTD)


def _attend(graph: Graph, layer: BertLayer, states_BTD: str, bias_B11T: str) -> str:
    part = layer.attention.self
    heads, columns = part.num_attention_heads, part.attention_head_size
    scale = 1 / math.sqrt(columns)  # into the query's weights: one operator less
    query_BHTK = _heads(graph, part.query, states_BTD, heads, columns, [0, 2, 1, 3], scale)
    key_BHKT = _heads(graph, part.key, states_BTD, heads, columns, [0, 2, 3, 1], 1.0)
    value_BHTK = _heads(graph, part.value, states_BTD, heads, columns, [0, 2, 1, 3], 1.0)
    scores_BHTT = graph.node("Add", graph.node("MatMul", query_BHTK, key_BHKT), bias_B11T)
    weights_BHTT = graph.node("Softmax", scores_BHTT, axis=-1)
    mixed_BHTK = graph.node("MatMul", weights_BHTT, value_BHTK)
    mixed_BTHK = graph.node("Transpose", mixed_BHTK, perm=[0, 2, 1, 3])
    return graph.node("Reshape", mixed_BTHK, graph.constant([0, 0, heads * columns]))


def _heads(
    graph: Graph, layer: nn.Linear, states_BTD: str, heads: int, columns: int, order: list[int], scale: float
) -> str:
    projected = _dense(graph, layer.weight * scale, layer.bias * scale, states_BTD)
    return graph.node(
        "Transpose", graph.node("Reshape", projected, graph.constant([0, 0, heads, columns])), perm=order
    )


def _dense(graph: Graph, weight: Tensor, bias: Tensor, states_BTD: str) -> str:
    return graph.node("Add", graph.node("MatMul", states_BTD, graph.tensor(weight.T)), graph.tensor(bias))


def _close(graph: Graph, dense: nn.Linear, norm: nn.LayerNorm, value_BTX: str, residual_BTD: str) -> str:
    """Project, add what went around, normalise."""
    return _layer_norm(
        graph, norm, graph.node("Add", _dense(graph, dense.weight, dense.bias, value_BTX), residual_BTD)
    )


def _layer_norm(graph: Graph, norm: nn.LayerNorm, value_BTD: str) -> str:
    weights = [graph.tensor(norm.weight), graph.tensor(norm.bias)]
    return graph.node("LayerNormalization", value_BTD, *weights, axis=-1, epsilon=norm.eps)
