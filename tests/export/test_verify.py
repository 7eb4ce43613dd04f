"""Each comparison of the proof finds the difference that it is there for."""

from __future__ import annotations

import numpy as np
import pytest

from kdsearch.core.errors import VerificationError
from kdsearch.data.tokens import TokenPool
from kdsearch.export.predict import pad
from kdsearch.export.verify import (
    BATCH_SIZES,
    TOLERANCE,
    check_parity,
    check_same_choice,
    check_tokenizer,
    largest_difference,
    pool_logits,
)

ROWS = [[5, 6, 7], [8], [9, 1, 2, 3, 4], [2, 2]]


def make_pool(rows: list[list[int]]) -> TokenPool:
    return TokenPool(
        name="validation",
        ids=np.array([i for row in rows for i in row], np.int32),
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        labels_N=np.zeros(len(rows), np.int64),
        keys=np.zeros((len(rows), 32), np.uint8),
    )


def summed(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A model that is right about padding."""
    total = (ids * mask).sum(axis=1)
    return np.stack([total, -total], axis=1).astype(np.float32)


def parity(torch_run, onnx_run):
    return check_parity(
        torch_run, onnx_run, make_pool(ROWS), vocab_size=50, max_length=9, pad_id=0, num_labels=2
    )


def test_equal_models_pass_in_every_shape() -> None:
    seen: set[tuple[int, int]] = set()

    def watched(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        seen.add(ids.shape)
        return summed(ids, mask)

    found = parity(summed, watched)
    assert found.onnx_diff == found.padding_diff == 0 and found.num_rows == len(ROWS)
    assert {(batch, length) for batch in BATCH_SIZES for length in (1, 2, 3, 9)} <= seen
    assert found.num_cases == 2 * 4 * len(BATCH_SIZES)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_difference_at_one_batch_size_is_found(batch_size: int) -> None:
    def wrong(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return summed(ids, mask) + (2 * TOLERANCE if len(ids) == batch_size else 0.0)

    with pytest.raises(VerificationError, match=f"batch {batch_size}|alone|validation"):
        parity(summed, wrong)


def test_padding_that_leaks_in_both_is_found() -> None:
    def leaking(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return summed(ids, mask) + ids.shape[1]

    with pytest.raises(VerificationError, match="alone"):
        parity(leaking, leaking)


def test_a_difference_on_real_rows_alone_is_found() -> None:
    def wrong(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        # only the four rows of the pool come as a batch of four
        return summed(ids, mask) + (1.0 if len(ids) == len(ROWS) else 0.0)

    with pytest.raises(VerificationError, match="validation rows alone"):
        parity(summed, wrong)


def test_not_a_number_is_a_difference() -> None:
    a = np.zeros((2, 2), np.float32)
    b = np.full_like(a, np.nan)
    with pytest.raises(VerificationError):
        largest_difference(a, b, of="x")
    with pytest.raises(VerificationError):
        largest_difference(b, b, of="x")
    with pytest.raises(VerificationError, match="shape"):
        largest_difference(a, a[:1], of="x")


def test_another_label_is_found_unless_the_logits_tie() -> None:
    clear = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    with pytest.raises(VerificationError, match="1 of 2 rows"):
        check_same_choice(clear, np.array([[1.0, 0.0], [1.0, 0.0]], np.float32), of="x")
    tie = np.array([[0.5, 0.5 + TOLERANCE]], np.float32)
    check_same_choice(tie, tie[:, ::-1], of="x")


def test_pool_logits_keep_the_order_of_the_pool() -> None:
    found = pool_logits(summed, make_pool(ROWS), num_labels=2, pad_id=0)
    assert found[:, 0].tolist() == [sum(row) for row in ROWS]


class Words:
    """As much of a tokenizer as is asked for."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def encode_batch(self, texts: list[str]) -> list:
        return [type("Encoding", (), {"ids": row}) for row in self.rows[: len(texts)]]


def test_other_token_ids_are_found() -> None:
    texts = ["a"] * len(ROWS)
    assert check_tokenizer(Words(ROWS), texts, make_pool(ROWS)) == len(ROWS)
    with pytest.raises(VerificationError, match="row 2"):
        check_tokenizer(Words([*ROWS[:2], [1], ROWS[3]]), texts, make_pool(ROWS))
    with pytest.raises(VerificationError, match="3 validation texts"):
        check_tokenizer(Words(ROWS), texts[:3], make_pool(ROWS))


def test_padding_has_at_least_one_column() -> None:
    ids, mask = pad([[], [4, 5]], pad_id=7)
    assert ids.tolist() == [[7, 7], [4, 5]] and mask.tolist() == [[0, 0], [1, 1]]
    assert pad([[]], pad_id=7)[0].tolist() == [[7]]
