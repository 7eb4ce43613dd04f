"""Batches: which rows go together, and their token ids padded to the batch's own longest row.

Which rows an epoch sees depends on nothing but (lengths, batch size, seed, epoch, rows), so that a resumed
trial and an uninterrupted one train on the same batches.
Letters: B rows of a batch, T tokens, C classes, D width, N rows of a pool.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdsearch.data.tokens import TokenPool

IntArray = npt.NDArray[np.int64]

BATCHES_SORTED_TOGETHER = 50
"""Rows of this many batches are sorted by length together: little padding, still well shuffled."""


class Output(NamedTuple):
    """What any student or teacher returns."""

    logits_BC: Tensor
    hidden_BD: Tensor
    """Pooled hidden vector that the classifier reads."""


class Batch(NamedTuple):
    """Rows ready for a student or teacher."""

    input_ids_BT: Tensor
    """int64, padded on the right."""
    attention_mask_BT: Tensor
    """int64; 1 on tokens, 0 on padding."""
    labels_B: Tensor
    """int64; -1 where there is no label."""
    rows_B: Tensor
    """int64; positions in the pool, to look up the teacher's signals."""


def _stream(num_rows: int, seed: int, start: int, stop: int) -> IntArray:
    """Rows [start, stop) of the endless stream of seeded permutations of a pool."""
    first, last = start // num_rows, -(-stop // num_rows)
    passes = [np.random.default_rng((seed, k)).permutation(num_rows) for k in range(first, last)]
    offset = first * num_rows
    return np.concatenate(passes)[start - offset : stop - offset].astype(np.int64)


def epoch_batches(
    lengths: IntArray, *, batch_size: int, seed: int, epoch: int, rows: int, whole_passes: bool = False
) -> list[IntArray]:
    """Row numbers of every batch of an epoch; `epoch` counts from 0 and sees exactly `rows` rows.

    Epoch e takes rows [e * rows, (e + 1) * rows) of the stream, so that after any number of epochs every
    row has been seen equally often, give or take one, however many rows an epoch has.

    With `whole_passes` no batch comes before one of an earlier pass over the pool or mixes two, as a teacher
    in training needs it: what it says of a row changes from visit to visit. A row of the batch before which
    `seen` rows were drawn since the first epoch has then been drawn `seen // N` times. Where an epoch is one
    pass, the batches are the same with it and without.
    """
    if not len(lengths) or rows < 1 or batch_size < 1:
        raise ValueError(f"no batches of {batch_size} from {len(lengths)} rows, {rows} an epoch")
    start, stop, size = epoch * rows, (epoch + 1) * rows, len(lengths)
    if not whole_passes:
        return _batches(_stream(size, seed, start, stop), lengths, batch_size, (seed, epoch, 1))
    batches: list[IntArray] = []
    for k in range(start // size, -(-stop // size)):
        part = _stream(size, seed, max(start, k * size), min(stop, (k + 1) * size))
        batches += _batches(part, lengths, batch_size, (seed, k, 1))
    return batches


def _batches(
    seen: IntArray, lengths: IntArray, batch_size: int, order_seed: tuple[int, ...]
) -> list[IntArray]:
    """Rows of about the same length together, the batches in seeded order."""
    batches: list[IntArray] = []
    together = BATCHES_SORTED_TOGETHER * batch_size
    for start in range(0, len(seen), together):
        bucket = seen[start : start + together]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches.extend(bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size))
    order = np.random.default_rng(order_seed).permutation(len(batches))
    return [batches[i] for i in order]


def micro_batches(rows: IntArray, count: int) -> list[IntArray]:
    """The rows of one batch, in order, in at most `count` parts of about equal size, none of them empty."""
    return np.array_split(rows, max(1, min(count, len(rows))))


def eval_batches(pool: TokenPool, batch_size: int) -> list[IntArray]:
    """Every row once, sorted by length, so that there is hardly any padding."""
    order = np.argsort(pool.lengths, kind="stable").astype(np.int64)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def collate(pool: TokenPool, rows: IntArray, *, pad_id: int, device: torch.device | str) -> Batch:
    """The rows as tensors, padded to the longest of them; at least one column, even if all are empty."""
    lengths = pool.lengths[rows]
    columns = np.arange(max(1, int(lengths.max(initial=0))))
    mask_BT = columns < lengths[:, None]
    ids_BT = np.full(mask_BT.shape, pad_id, np.int64)
    ids_BT[mask_BT] = pool.ids[(pool.offsets[rows][:, None] + columns)[mask_BT]]
    tensors = (ids_BT, mask_BT.astype(np.int64), pool.labels_N[rows], rows)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(t)).to(device) for t in tensors))
