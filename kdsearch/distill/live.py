"""A teacher that is trained while it teaches: its forward passes, and what it said last of every row.

Notable:
- Random numbers of its own, decided by (seed, rows drawn before, turn): the student's are the same with it
  and without it, and so are its own with a student and without one.
- It learns for some passes over the pool, then stands still and is no longer run: what it said at a row's
  last visit is said again. The recorded trajectory is replayed by the same rule.

Letters: B rows of a batch, N rows of the pool, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.data.batches import Output, collate
from kdsearch.data.tokens import TokenPool

VALIDATION = "validation"


@dataclass(frozen=True, kw_only=True)
class LiveTeacher:
    """A teacher to be trained beside a student."""

    module: nn.Module = field(repr=False)
    """Before this training; its weights change."""
    pools: Mapping[str, TokenPool] = field(repr=False)
    """The student's pools, the same rows in the same order, as the teacher's tokens; ``validation`` too."""
    pad_id: int

    def join(
        self, name: str, pool: TokenPool, *, passes: int, num_labels: int, seed: int, device: str
    ) -> TeacherInTraining:
        """To be trained on the rows of one of the student's pools; ValueError if its own has others."""
        own = self.pools[name]
        if not np.array_equal(own.keys, pool.keys):
            raise ValueError(f"the teacher's pool {name!r} has other rows than the student's")
        return TeacherInTraining(
            self.module,
            own,
            pad_id=self.pad_id,
            num_labels=num_labels,
            passes=passes,
            seed=seed,
            device=device,
        )


class TeacherInTraining(nn.Module):
    """The teacher in train mode on one pool; its state is its weights and what it said last of every row."""

    said_NC: Tensor

    def __init__(
        self,
        module: nn.Module,
        pool: TokenPool,
        *,
        pad_id: int,
        num_labels: int,
        passes: int,
        seed: int,
        device: str,
    ) -> None:
        super().__init__()
        self.module, self.pool, self.pad_id = module, pool, pad_id
        self.seed, self.device = seed, torch.device(device)
        self.rows_to_learn = passes * len(pool)
        self.register_buffer("said_NC", torch.full((len(pool), num_labels), torch.nan))
        self.to(self.device)

    def forward(self, rows: npt.NDArray[np.int64], seen: int, turn: int = 0) -> Tensor:
        """Float32 logits (B, C) of some rows before which `seen` rows were drawn since training began.

        With gradient as long as it learns, and without any afterwards.
        """
        rows_B = torch.from_numpy(rows).to(self.device)
        if seen >= self.rows_to_learn:
            return self.said_NC[rows_B]
        batch = collate(self.pool, rows, pad_id=self.pad_id, device=self.device)
        on_cuda = self.device.type == "cuda"
        with (
            torch.random.fork_rng([self.device] if on_cuda else []),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_cuda),
        ):
            torch.manual_seed(seed_of(f"{self.seed}/teacher/{seen}/{turn}"))
            output: Output = self.module(batch.input_ids_BT, batch.attention_mask_BT)
        logits_BC = output.logits_BC.float()
        self.said_NC[rows_B] = logits_BC.detach()
        return logits_BC


def seed_of(text: str) -> int:
    """A seed for torch that depends on the whole text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
