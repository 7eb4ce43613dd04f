"""Graph: ONNX nodes written by hand, for students that draw themselves.

torch's exporter takes seconds, refuses packed sequences and lets padding into an LSTM; a hand-drawn graph
takes milliseconds and is small. Needs the extra `onnx`. Letters as in `base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET = 20
IR_VERSION = 10
"""Readable by onnxruntime 1.18 and later."""


def _onnx_gates(weights: Tensor) -> Tensor:
    """torch stacks the gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    inputs, forget, cell, output = weights.detach().chunk(4)
    return torch.cat([inputs, output, forget, cell])


class Graph:
    """Nodes and constants under construction; every method returns names of values."""

    ids_BT = "input_ids"
    mask_BT = "attention_mask"

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: np.ndarray[Any, Any] | Sequence[int] | int | float) -> str:
        """A stored value; integers become int64, a float float32."""
        if isinstance(values, float):
            values = np.array(values, np.float32)
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def tensor(self, values: Tensor) -> str:
        """A stored tensor: weights as float32, integers as they are."""
        floating = values.detach().cpu().to(torch.float32 if values.is_floating_point() else values.dtype)
        return self.constant(floating.numpy())

    def nodes(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """One operator with several outputs."""
        number = len(self._nodes)
        names = [f"{op.lower()}_{number}_{i}" for i in range(outputs)]
        self._nodes.append(
            helper.make_node(op, list(inputs), names, name=f"{op.lower()}_{number}", **attributes)
        )
        return names

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One operator with one output."""
        return self.nodes(op, inputs, 1, **attributes)[0]

    def linear(self, layer: nn.Linear, rows_BD: str) -> str:
        """A dense layer over rows."""
        inputs = [rows_BD, self.tensor(layer.weight)]
        if layer.bias is not None:
            inputs.append(self.tensor(layer.bias))
        return self.node("Gemm", *inputs, transB=1)

    def convolution(self, layer: nn.Conv1d, columns_BET: str, sides: tuple[int, int]) -> str:
        """A convolution over tokens, with zeros before and after them."""
        assert layer.bias is not None
        weights = [self.tensor(layer.weight), self.tensor(layer.bias)]
        return self.node("Conv", columns_BET, *weights, pads=list(sides))

    def float_mask(self) -> str:
        """The mask (B, T) as float32."""
        return self.as_float(self.mask_BT)

    def as_float(self, value: str) -> str:
        """The value as float32."""
        return self.node("Cast", value, to=TensorProto.FLOAT)

    def compact_ids(self, id_table: Tensor) -> str:
        """Rows (B, T) of the embedding; int32 halves the table."""
        return self.node("Gather", self.tensor(id_table.to(torch.int32)), self.ids_BT)

    def masked_rows(self, id_table: Tensor) -> str:
        """Rows (B, T) of the embedding, on padding the first one, which is that of padding."""
        mask_BT = self.node("Cast", self.mask_BT, to=TensorProto.INT32)
        return self.node("Mul", self.compact_ids(id_table), mask_BT)

    def embed(self, id_table: Tensor, table_VE: Tensor, mask_BT1: str) -> str:
        """Vectors (B, T, E) of the tokens, zero on padding."""
        vectors = self.node("Gather", self.tensor(table_VE), self.compact_ids(id_table))
        return self.node("Mul", vectors, mask_BT1)

    def unsqueeze(self, value: str, *axes: int) -> str:
        """New axes of one."""
        return self.node("Unsqueeze", value, self.constant(axes))

    def reduce(self, op: str, value: str, axis: int, *, keepdims: bool = False) -> str:
        """`ReduceSum`, `ReduceMax`... over one axis."""
        return self.node(op, value, self.constant([axis]), keepdims=int(keepdims))

    def lengths(self) -> str:
        """Number of tokens (B,) int64, at least 1."""
        return self.node("Max", self.reduce("ReduceSum", self.mask_BT, 1), self.constant([1]))

    def is_token(self, lengths_B: str) -> str:
        """True (B, T) on tokens, and on the first column always."""
        num_T = self.node("Squeeze", self.node("Shape", self.ids_BT, start=1, end=2))
        positions_T = self.node("Range", self.constant(0), num_T, self.constant(1))
        return self.node("Less", positions_T, self.unsqueeze(lengths_B, 1))

    def bilstm(self, ahead: nn.LSTM, back: nn.LSTM, states_TBD: str, lengths_B: str) -> str:
        """States (T, B, 2H) of a layer: forwards and, within each length, backwards; zero on padding."""
        directions = [dict(lstm.named_parameters()) for lstm in (ahead, back)]
        gates = [
            torch.stack([_onnx_gates(d[f"weight_{kind}_l0"]) for d in directions]) for kind in ("ih", "hh")
        ]
        biases = torch.stack(
            [torch.cat([_onnx_gates(d[f"bias_{kind}_l0"]) for kind in ("ih", "hh")]) for d in directions]
        )
        int_lengths = self.node("Cast", lengths_B, to=TensorProto.INT32)
        inputs = [states_TBD, self.tensor(gates[0]), self.tensor(gates[1]), self.tensor(biases), int_lengths]
        hidden = ahead.hidden_size
        states_T2BH = self.node("LSTM", *inputs, hidden_size=hidden, direction="bidirectional")
        states_TB2H = self.node("Transpose", states_T2BH, perm=[0, 2, 1, 3])
        return self.node("Reshape", states_TB2H, self.constant([0, 0, 2 * hidden]))

    def to_bytes(self, logits_BC: str, *, num_labels: int) -> bytes:
        """The checked ONNX file."""
        self._nodes.append(helper.make_node("Identity", [logits_BC], ["logits"], name="logits"))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in (self.ids_BT, self.mask_BT)
        ]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", num_labels])
        graph = helper.make_graph(self._nodes, "student", inputs, [logits], self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, producer_name="kdsearch", ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data
