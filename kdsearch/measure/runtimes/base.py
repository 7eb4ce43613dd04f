"""What a runtime is: it turns a module into something that answers queries, and says how big that is.

Letters: B texts of a query, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import nn

from kdsearch.core.spec import LatencySpec

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Runner: TypeAlias = Callable[[IntArray, IntArray], FloatArray]
"""(input ids (B, T), attention mask (B, T)) -> logits (B, C); returns when they are there."""


@dataclass(frozen=True)
class Prepared:
    """A module ready to be timed."""

    run: Runner
    size_mb: float
    """10^6 bytes of what is deployed."""
    num_params: int


class Runtime(Protocol):
    """Something that executes modules."""

    def prepare(self, module: nn.Module, spec: LatencySpec) -> Prepared:
        """Convert and load the module; whatever takes long happens here, before anything is timed."""
        ...


def num_params(module: nn.Module) -> int:
    """Trainable or not, each parameter once."""
    return sum(parameter.numel() for parameter in module.parameters())
