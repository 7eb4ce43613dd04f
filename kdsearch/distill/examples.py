"""What a stage trains on: its pools as one, and every signal row by row.

Letters: N rows of all pools, B of a batch, E visits of a trajectory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdsearch.data.tokens import TokenPool, concat
from kdsearch.distill.stage import LIVE, TRAJECTORY, Stage

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Examples:
    """Row i of the pool has row i of every signal (N, ...); a trajectory's rows come second (E, N, ...)."""

    pool: TokenPool
    signals: Mapping[str, Tensor]

    def look_up(self, name: str, rows_B: Tensor, rows_seen: int) -> Tensor:
        """Float32 signal of some rows before which `rows_seen` were drawn since training began."""
        signal = self.signals[name]
        if name == TRAJECTORY:
            signal = signal[min(rows_seen // len(self.pool), len(signal) - 1)]
        return signal[rows_B].float()


def gather(
    stage: Stage,
    pools: Mapping[str, TokenPool],
    signals: Mapping[str, Arrays],
    *,
    num_labels: int,
    device: str,
) -> Examples:
    """A stage's pools and the signals that its terms need; ValueError where they do not fit each other."""
    parts = [pools[name] for name in stage.pools]
    found = {}
    for name in sorted(stage.needs - {LIVE}):
        arrays = [signals[name][pool] for pool in stage.pools]
        _check(name, parts, arrays, num_labels)
        whole = np.concatenate(arrays, axis=_rows_axis(name))
        found[name] = torch.from_numpy(whole).to(device)
    return Examples(concat(parts, name="+".join(stage.pools)), found)


def _rows_axis(name: str) -> int:
    return 1 if name == TRAJECTORY else 0


def _check(
    name: str, pools: Sequence[TokenPool], arrays: Sequence[npt.NDArray[Any]], num_labels: int
) -> None:
    for pool, array in zip(pools, arrays, strict=True):
        rows = array.shape[_rows_axis(name)] == len(pool)
        columns = name.startswith("hidden:") or array.shape[-1] == num_labels
        if not (rows and columns and np.isfinite(array).all()):
            raise ValueError(
                f"signal {name!r} of pool {pool.name!r} does not fit its {len(pool)} rows and {num_labels}"
                f" labels, or is not finite: {array.shape}"
            )
