"""The preparation's lease: one holder, taken over after death, done once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from store_bench import Bench

from kdsearch.core.errors import LeaseLostError
from kdsearch.store import preparations, studies
from kdsearch.store.leases import MAX_DEATHS
from kdsearch.store.preparations import PreparationLease


def take(bench: Bench, worker: str = "w1") -> PreparationLease | None:
    return preparations.take_preparation(bench.engine, bench.study.id, worker, 60)


def expire(bench: Bench) -> None:
    query = "UPDATE kdsearch.preparation SET expires_at = clock_timestamp() - interval '1 second'"
    with bench.engine.begin() as connection:
        assert connection.execute(text(query)).rowcount == 1


def state(bench: Bench) -> str:
    return preparations.preparation(bench.engine, bench.study.id).state


def test_one_prepares_and_the_others_see_how_far_it_is(bench: Bench) -> None:
    lease = take(bench)
    assert lease is not None
    assert take(bench, "w2") is None
    preparations.preparation_progress(bench.engine, lease, "epoch 1 of 2", "c" * 64)
    preparations.preparation_progress(bench.engine, lease, "epoch 2 of 2")
    row = preparations.preparation(bench.engine, bench.study.id)
    assert (row.state, row.progress, row.worker_id, row.checkpoint) == (
        "running",
        "epoch 2 of 2",
        "w1",
        "c" * 64,
    )
    preparations.renew_preparation(bench.engine, lease, 60)
    for _ in range(2):
        preparations.finish_preparation(bench.engine, lease, "d" * 64)
    assert take(bench, "w2") is None
    assert preparations.preparation(bench.engine, bench.study.id).prepared == "d" * 64
    assert studies.find_study(bench.engine, "spam").prepared == "d" * 64


def test_a_dead_holder_is_replaced_and_fenced(bench: Bench) -> None:
    dead = take(bench)
    assert dead is not None
    preparations.preparation_progress(bench.engine, dead, "anchor 1", "c" * 64)
    expire(bench)
    heir = take(bench, "w2")
    assert heir is not None
    assert (heir.checkpoint, heir.attempt) == ("c" * 64, dead.attempt + 1)
    for write in (
        lambda: preparations.renew_preparation(bench.engine, dead, 60),
        lambda: preparations.preparation_progress(bench.engine, dead, "zombie", "e" * 64),
        lambda: preparations.finish_preparation(bench.engine, dead, "e" * 64),
        lambda: preparations.fail_preparation(bench.engine, dead, "zombie"),
        lambda: preparations.give_back_preparation(bench.engine, dead),
    ):
        with pytest.raises(LeaseLostError):
            write()
    row = preparations.preparation(bench.engine, bench.study.id)
    assert (row.state, row.progress, row.prepared) == ("running", "anchor 1", None)
    assert studies.find_study(bench.engine, "spam").state == "open"


def test_given_back_is_taken_again_and_costs_no_death(bench: Bench) -> None:
    for number in range(3 * MAX_DEATHS):
        lease = take(bench, f"w{number}")
        assert lease is not None
        preparations.give_back_preparation(bench.engine, lease)
    assert state(bench) == "waiting"


def test_a_preparation_that_kills_its_workers_fails_the_study(bench: Bench) -> None:
    for number in range(MAX_DEATHS):
        assert take(bench, f"w{number}") is not None
        expire(bench)
    assert take(bench, "late") is None
    assert state(bench) == "failed"
    study = studies.find_study(bench.engine, "spam")
    assert study.state == "failed"
    assert f"w{MAX_DEATHS - 1}" in (study.error or "")


def test_a_failed_preparation_is_tried_again_after_reopening(bench: Bench) -> None:
    lease = take(bench)
    assert lease is not None
    preparations.fail_preparation(bench.engine, lease, "no space left\0")
    study = studies.find_study(bench.engine, "spam")
    assert (study.state, study.error) == ("failed", "no space left")
    assert take(bench) is None
    studies.reopen(bench.engine, bench.study.id)
    assert studies.find_study(bench.engine, "spam").state == "open"
    assert take(bench) is not None


def test_many_at_once_get_one_lease(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = [lease for lease in pool.map(lambda i: take(bench, f"w{i}"), range(8)) if lease is not None]
    assert len(got) == 1
