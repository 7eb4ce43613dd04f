"""A short probe of this machine: how many rows a second a teacher or a student reads and learns from.

Random token ids of the study's mean length, so that nothing need be prepared; what is timed is the same
forward and backward pass that training makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdsearch.core.space import Choice, Dimension, Fixed, Range, Scalar, Space
from kdsearch.students.base import InputShape
from kdsearch.students.building import build_student

BATCH = 32
SECONDS, STEPS = 0.6, 2
"""Each figure takes at least so long, and so many steps after one that does not count."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Rows a second, and the size of what was probed."""

    reading: float
    learning: float
    num_params: int

    @property
    def size_mb(self) -> float:
        """10^6 bytes of float32 weights."""
        return 4 * self.num_params / 1e6


def rates(module: nn.Module, *, vocab_size: int, length: int, num_labels: int, device: str) -> Rates:
    """Of one network as it is: what is frozen in it stays so."""
    module = module.to(device)
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(0, vocab_size, (BATCH, max(1, length)), generator=generator).to(device)
    mask_BT = torch.ones_like(ids_BT)
    labels_B = torch.randint(0, num_labels, (BATCH,), generator=generator).to(device)
    learned = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4)

    def read() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(ids_BT, mask_BT).logits_BC
            return logits

    def learn() -> Tensor:
        loss = nn.functional.cross_entropy(module(ids_BT, mask_BT).logits_BC, labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    module.eval()
    reading = _per_second(read)
    module.train()
    learning = _per_second(learn)
    return Rates(reading=reading, learning=learning, num_params=sum(p.numel() for p in module.parameters()))


def _per_second(step: Callable[[], Tensor]) -> float:
    float(step().sum())  # warm-up; reading a value waits for a GPU
    begun, steps = time.perf_counter(), 0
    while steps < STEPS or time.perf_counter() - begun < SECONDS:
        float(step().sum())
        steps += 1
    return BATCH * steps / (time.perf_counter() - begun)


def student_rates(
    name: str, params: Mapping[str, Scalar], shape: InputShape, *, length: int, device: str
) -> Rates:
    """Of a student of these parameters, from random weights."""
    student = build_student(name, params, shape, None)
    return rates(
        student, vocab_size=shape.num_tokens, length=length, num_labels=shape.num_labels, device=device
    )


# ---------------------------------------------------------------- which student


def middle(space: Space, narrowed: Mapping[str, Dimension]) -> dict[str, Scalar]:
    """The parameters in the middle of their ranges; of names the first."""
    values: dict[str, Scalar] = {}
    for name, param in space.items():
        if param.exists(values):
            values[name] = _middle(param.narrow(narrowed.get(name, param.default)))
    return values


def _middle(dimension: Dimension) -> Scalar:
    if isinstance(dimension, Fixed):
        return dimension.value
    if isinstance(dimension, Choice):
        return _of_choice(dimension.options)
    mean = (dimension.low * dimension.high) ** 0.5 if dimension.log else (dimension.low + dimension.high) / 2
    return _on_grid(dimension, mean)


def _of_choice(options: Sequence[Scalar]) -> Scalar:
    named = any(isinstance(option, (str, bool)) for option in options)
    return options[0] if named else options[len(options) // 2]


def _on_grid(dimension: Range, value: float) -> Scalar:
    step = dimension.step or (1 if dimension.integer else None)
    if step is None:
        return value
    found = dimension.low + round((value - dimension.low) / step) * step
    return int(found) if dimension.integer else found
