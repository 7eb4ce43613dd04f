"""Batches: pure, fair to every row, padded to their own length, and no row loses a token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.data.batches import BATCHES_SORTED_TOGETHER, collate, epoch_batches, eval_batches
from kdsearch.data.tokens import TokenPool, text_keys

PAD = 99


def pool_of(lengths: list[int]) -> TokenPool:
    """Row i holds the ids 1, 2, ... and the label i % 3 - 1."""
    ids = np.concatenate([np.arange(1, n + 1) for n in [*lengths, 0]]).astype(np.int32)
    labels = np.arange(len(lengths)) % 3 - 1
    keys = text_keys(map(str, range(len(lengths))))
    return TokenPool("pool", ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), labels, keys)


LENGTHS = st.lists(st.integers(0, 20), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 5), st.integers(0, 4), st.integers(1, 150))
def test_every_row_is_seen_equally_often_whatever_an_epoch_holds(
    lengths: list[int], batch_size: int, seed: int, epochs: int, rows: int
) -> None:
    counts = np.zeros(len(lengths), int)
    for epoch in range(epochs + 1):
        batches = epoch_batches(np.array(lengths), batch_size=batch_size, seed=seed, epoch=epoch, rows=rows)
        assert sum(map(len, batches)) == rows
        assert sum(len(batch) < batch_size for batch in batches) <= 1
        np.add.at(counts, np.concatenate(batches), 1)
    assert counts.max() - counts.min() <= 1


def test_batches_depend_on_their_arguments_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 200)

    def batches(seed: int = 3, epoch: int = 4) -> list[list[int]]:
        np.random.seed(epoch)  # global state must not matter
        found = epoch_batches(lengths, batch_size=16, seed=seed, epoch=epoch, rows=130)
        return [batch.tolist() for batch in found]

    assert batches() == batches()
    assert batches() != batches(seed=4)
    assert batches() != batches(epoch=5)


def test_epochs_continue_one_stream() -> None:
    lengths = np.ones(50, int)

    def rows(epoch: int, size: int) -> set[int]:
        return set(
            np.concatenate(epoch_batches(lengths, batch_size=4, seed=1, epoch=epoch, rows=size)).tolist()
        )

    assert rows(0, 25) | rows(1, 25) == set(range(50))
    assert rows(0, 25) == {r for e in range(5) for r in rows(e, 5)}


def test_every_pass_groups_the_rows_anew() -> None:
    def groups(epoch: int) -> set[frozenset[int]]:
        batches = epoch_batches(np.ones(40, int), batch_size=4, seed=1, epoch=epoch, rows=40)
        return {frozenset(batch.tolist()) for batch in batches}

    assert len(groups(0) & groups(1)) < 3


def test_bucketing_saves_padding_and_order_of_batches_is_shuffled() -> None:
    batch_size, count = 8, 8 * BATCHES_SORTED_TOGETHER
    lengths = np.random.default_rng(0).integers(1, 100, count)
    batches = epoch_batches(lengths, batch_size=batch_size, seed=0, epoch=0, rows=count)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.05 * lengths.sum()
    longest = [int(lengths[batch].max()) for batch in batches]
    assert longest != sorted(longest)


@pytest.mark.parametrize("broken", [{"lengths": []}, {"rows": 0}, {"batch_size": 0}])
def test_nothing_to_batch_is_an_error(broken: dict[str, object]) -> None:
    arguments = {"lengths": [1, 2], "rows": 2, "batch_size": 1, **broken}
    lengths = np.array(arguments.pop("lengths"), int)
    with pytest.raises(ValueError, match="no batches of"):
        epoch_batches(lengths, seed=0, epoch=0, **arguments)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 5), st.integers(1, 150))
def test_whole_passes_come_one_after_the_other(
    lengths: list[int], batch_size: int, seed: int, rows: int
) -> None:
    visits, seen = np.zeros(len(lengths), int), 0
    for epoch in range(3):
        batches = epoch_batches(
            np.array(lengths), batch_size=batch_size, seed=seed, epoch=epoch, rows=rows, whole_passes=True
        )
        assert sum(map(len, batches)) == rows
        for batch in batches:
            assert len(set(batch.tolist())) == len(batch)
            assert (visits[batch] == seen // len(lengths)).all()
            visits[batch] += 1
            seen += len(batch)


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 3))
def test_where_an_epoch_is_one_pass_there_is_one_way_to_batch(
    lengths: list[int], batch_size: int, epoch: int
) -> None:
    plain, passes = (
        epoch_batches(
            np.array(lengths),
            batch_size=batch_size,
            seed=1,
            epoch=epoch,
            rows=len(lengths),
            whole_passes=whole,
        )
        for whole in (False, True)
    )
    assert [batch.tolist() for batch in plain] == [batch.tolist() for batch in passes]
    twice = epoch_batches(
        np.array(lengths), batch_size=batch_size, seed=1, epoch=0, rows=2 * len(lengths), whole_passes=True
    )
    if epoch < 2:
        half = twice[len(passes) * epoch : len(passes) * (epoch + 1)]
        assert [batch.tolist() for batch in half] == [batch.tolist() for batch in passes]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_evaluation_meets_every_row_once_shortest_first(lengths: list[int], batch_size: int) -> None:
    pool = pool_of(lengths)
    order = np.concatenate(eval_batches(pool, batch_size))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert np.all(np.diff(pool.lengths[order]) >= 0)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.randoms(use_true_random=False))
def test_collated_rows_are_the_pools_rows(lengths: list[int], random: object) -> None:
    pool = pool_of(lengths)
    rows = np.array(random.sample(range(len(lengths)), len(lengths)))  # type: ignore[attr-defined]
    batch = collate(pool, rows, pad_id=PAD, device="cpu")
    assert batch.input_ids_BT.shape == (len(rows), max(1, *lengths, 0))
    assert batch.input_ids_BT.dtype == batch.attention_mask_BT.dtype == torch.int64
    assert batch.rows_B.tolist() == rows.tolist()
    assert batch.labels_B.tolist() == pool.labels_N[rows].tolist()
    for i, row in enumerate(rows):
        kept = batch.input_ids_BT[i][batch.attention_mask_BT[i] == 1]
        assert kept.tolist() == pool.row(row).tolist()
    assert set(batch.input_ids_BT[batch.attention_mask_BT == 0].tolist()) <= {PAD}
    assert torch.all(batch.attention_mask_BT.diff(dim=1) <= 0), "padding stands on the right"
