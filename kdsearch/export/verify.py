"""Proof that an export is what was measured: weights, ONNX graph and tokenizer read back and compared.

Letters: N rows of a pool, B of a batch, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from kdsearch.core.errors import VerificationError
from kdsearch.data.batches import collate, eval_batches
from kdsearch.data.tokens import TokenPool
from kdsearch.export.predict import run_session
from kdsearch.students.base import Student

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Run = Callable[[IntArray, IntArray], FloatArray]

TOLERANCE = 1e-3
"""Largest absolute difference of two logits that counts as equal."""
BATCH_SIZES = (1, 2, 7, 32)
ROWS_THROUGH_ONNX = 2000
TEXTS_TOKENISED = 1000
EVAL_BATCH, PADDED_BATCH = 64, 32


def fail(what: str) -> VerificationError:
    """An export that is not what was measured; whoever writes the folder says where it lies."""
    return VerificationError(what)


def student_run(student: Student) -> Run:
    """The torch student in eval mode, as a function of arrays."""
    student.eval()

    def run(ids_BT: IntArray, mask_BT: IntArray) -> FloatArray:
        with torch.inference_mode():
            output = student(torch.from_numpy(ids_BT), torch.from_numpy(mask_BT))
        logits_BC: FloatArray = output.logits_BC.float().numpy()
        return logits_BC

    return run


def session_run(session: Any) -> Run:
    """The ONNX graph, as a function of arrays."""
    return lambda ids_BT, mask_BT: run_session(session, ids_BT, mask_BT)


def pool_logits(
    run: Run, pool: TokenPool, *, num_labels: int, pad_id: int, batch_size: int = EVAL_BATCH
) -> FloatArray:
    """Logits (N, C) of a pool, in its order; batches are made of rows of similar length."""
    return _logits_of(run, pool, eval_batches(pool, batch_size), num_labels=num_labels, pad_id=pad_id)


def padded_logits(run: Run, pool: TokenPool, *, num_labels: int, pad_id: int) -> FloatArray:
    """As `pool_logits`, in batches of whatever comes next: short rows are padded to long ones."""
    batches = np.array_split(np.arange(len(pool)), -(-len(pool) // PADDED_BATCH) or 1)
    return _logits_of(run, pool, batches, num_labels=num_labels, pad_id=pad_id)


def _logits_of(
    run: Run, pool: TokenPool, batches: Sequence[IntArray], *, num_labels: int, pad_id: int
) -> FloatArray:
    logits_NC = np.empty((len(pool), num_labels), np.float32)
    for rows in batches:
        batch = collate(pool, rows, pad_id=pad_id, device="cpu")
        logits_NC[rows] = run(batch.input_ids_BT.numpy(), batch.attention_mask_BT.numpy())
    return logits_NC


def largest_difference(a: FloatArray, b: FloatArray, *, of: str) -> float:
    """Largest absolute difference; VerificationError beyond the tolerance, or if anything is not finite."""
    if a.shape != b.shape:
        raise fail(f"{of}: logits of shape {a.shape} against {b.shape}")
    largest = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
    if not largest <= TOLERANCE:  # also where it is NaN
        raise fail(f"{of}: logits differ by {largest:.3g}, at most {TOLERANCE:g} is allowed")
    return largest


def check_same_choice(a: FloatArray, b: FloatArray, *, of: str) -> None:
    """The same label on every row, except where the two best logits of `a` are as good as equal."""
    top_N2 = np.sort(a, axis=1)[:, -2:]
    clear_N = (top_N2[:, 1] - top_N2[:, 0]) > 2 * TOLERANCE
    differing = int((clear_N & (a.argmax(axis=1) != b.argmax(axis=1))).sum())
    if differing:
        raise fail(f"{of}: another label on {differing} of {len(a)} rows")


@dataclass(frozen=True)
class Parity:
    """ONNX against torch."""

    onnx_diff: float
    padding_diff: float
    num_cases: int
    num_rows: int


def check_parity(
    torch_run: Run,
    onnx_run: Run,
    pool: TokenPool,
    *,
    vocab_size: int,
    max_length: int,
    pad_id: int,
    num_labels: int,
) -> Parity:
    """Random ids in every shape, then real rows; VerificationError where the two differ."""
    differences, alone = [], []
    cases = list(_shapes(vocab_size, max_length, pad_id))
    for ids_BT, mask_BT in cases:
        shape = f"batch {ids_BT.shape[0]}, length {ids_BT.shape[1]}"
        found_BC = onnx_run(ids_BT, mask_BT)
        differences.append(
            largest_difference(torch_run(ids_BT, mask_BT), found_BC, of=f"ONNX against torch at {shape}")
        )
        length = int(mask_BT[0].sum())
        alone_1C = onnx_run(ids_BT[:1, :length], mask_BT[:1, :length])
        alone.append(largest_difference(alone_1C, found_BC[:1], of=f"ONNX, alone against {shape}"))
    rows = first_rows(pool, ROWS_THROUGH_ONNX)
    a = pool_logits(torch_run, rows, num_labels=num_labels, pad_id=pad_id)
    b = pool_logits(onnx_run, rows, num_labels=num_labels, pad_id=pad_id, batch_size=1)
    differences.append(largest_difference(a, b, of="ONNX against torch on the validation pool"))
    check_same_choice(a, b, of="ONNX against torch on the validation pool")
    padded = padded_logits(onnx_run, rows, num_labels=num_labels, pad_id=pad_id)
    alone.append(largest_difference(b, padded, of="ONNX, validation rows alone against padded batches"))
    return Parity(max(differences), max(alone), len(cases), len(rows))


def _shapes(vocab_size: int, max_length: int, pad_id: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Ids and mask (B, T) of every batch size, length 1, 2, odd and longest, padded and not."""
    rng = np.random.default_rng(0)
    lengths = sorted({1, min(2, max_length), _odd(max_length), max_length})
    for batch_size, length, padded in product(BATCH_SIZES, lengths, (False, True)):
        ids_BT = rng.integers(0, vocab_size, (batch_size, length), dtype=np.int64)
        tokens_B = rng.integers(1, length + 1, batch_size) if padded else np.full(batch_size, length)
        if padded:
            tokens_B[-1] = length if batch_size > 1 else 1
        mask_BT = (np.arange(length) < tokens_B[:, None]).astype(np.int64)
        yield np.where(mask_BT == 1, ids_BT, pad_id), mask_BT


def _odd(max_length: int) -> int:
    half = max_length // 2
    return max(1, half - (half % 2 == 0))


def first_rows(pool: TokenPool, rows: int) -> TokenPool:
    """The first rows of a pool."""
    n = min(rows, len(pool))
    return TokenPool(
        name=pool.name,
        ids=pool.ids[: pool.offsets[n]],
        offsets=pool.offsets[: n + 1],
        labels_N=pool.labels_N[:n],
        keys=pool.keys[:n],
    )


def check_tokenizer(tokenizer: Tokenizer, texts: Sequence[str], pool: TokenPool) -> int:
    """How many texts were compared: each must get the ids that the student was scored on."""
    if len(texts) != len(pool):
        raise fail(f"{len(texts)} validation texts, but {len(pool)} tokenised ones")
    encoded = tokenizer.encode_batch(list(texts[:TEXTS_TOKENISED]))
    for i, encoding in enumerate(encoded):
        if not np.array_equal(np.asarray(encoding.ids, np.int32), pool.row(i)):
            raise fail(f"the exported tokenizer gives validation row {i} other ids than the training's did")
    return len(encoded)
