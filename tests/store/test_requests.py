"""Requests: filed once, taken by one, fenced, taken again after a death."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from store_bench import Bench

from kdsearch.core.errors import ConflictError, LeaseLostError, NotFoundError, StorageError
from kdsearch.store import requests
from kdsearch.store.requests import MAX_ATTEMPTS, RequestLease


def ask(bench: Bench, trial: int = 3) -> int:
    return requests.file(bench.engine, bench.study.name, "export", {"trial": trial})


def take(bench: Bench, worker: str = "w1") -> RequestLease | None:
    return requests.take(bench.engine, bench.study.id, worker, 60)


def expire(bench: Bench) -> None:
    query = (
        "UPDATE kdsearch.request SET expires_at = '-infinity' WHERE state = 'running' AND study_id = :study"
    )
    with bench.engine.begin() as connection:
        assert connection.execute(text(query), {"study": bench.study.id}).rowcount == 1


def test_a_button_pressed_twice_is_one_request_until_it_is_done(bench: Bench) -> None:
    first = ask(bench)
    assert ask(bench) == first != ask(bench, trial=4)
    lease = take(bench)
    assert lease is not None
    assert (lease.id, lease.kind, lease.arguments) == (first, "export", {"trial": 3})
    assert ask(bench) == first
    requests.progress(bench.engine, lease, "reading trial 3")
    assert requests.requests(bench.engine, bench.study.id)[-1].progress == "reading trial 3"
    for _ in range(2):
        requests.finish(bench.engine, lease, {"artifact": "a" * 64})
    done = requests.requests(bench.engine, bench.study.id)[-1]
    assert (done.state, done.result) == ("done", {"artifact": "a" * 64})
    assert ask(bench) != first


def test_the_oldest_comes_first_and_two_workers_never_share_one(bench: Bench) -> None:
    ids = [ask(bench, trial) for trial in range(3)]
    taken = [take(bench, worker) for worker in ("w1", "w2", "w3", "w4")]
    assert [lease and lease.id for lease in taken] == [*ids, None]


def test_a_dead_worker_is_replaced_and_fenced_and_in_the_end_given_up(bench: Bench) -> None:
    ask(bench)
    for number in range(1, MAX_ATTEMPTS + 1):
        lease = take(bench, f"w{number}")
        assert lease is not None
        assert lease.attempt == number
        requests.renew(bench.engine, lease, 60)
        expire(bench)
        if number < MAX_ATTEMPTS:
            heir = take(bench, "heir")
            assert heir is not None
            with pytest.raises(LeaseLostError):
                requests.finish(bench.engine, lease, {})
            requests.give_back(bench.engine, heir)
    assert take(bench) is None
    (row,) = requests.requests(bench.engine, bench.study.id)
    assert row.state == "failed"
    assert f"w{MAX_ATTEMPTS}" in str(row.error)


def test_a_failure_says_why(bench: Bench) -> None:
    ask(bench)
    lease = take(bench)
    assert lease is not None
    requests.fail(bench.engine, lease, "trial 3 is paused: it has no student to export")
    (row,) = requests.requests(bench.engine, bench.study.id)
    assert (row.state, row.error) == ("failed", "trial 3 is paused: it has no student to export")


def test_what_cannot_be_asked_for_is_refused(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="no study 'ham'"):
        requests.file(bench.engine, "ham", "pause", {})
    with pytest.raises(StorageError):
        requests.file(bench.engine, bench.study.name, "drop", {})  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="small object"):
        requests.file(bench.engine, bench.study.name, "enqueue", {"x": "y" * 20_000})
    for trial in range(100):
        ask(bench, trial)
    with pytest.raises(ConflictError, match="too many open requests"):
        ask(bench, 100)
    assert ask(bench, 7)  # the same again is none more
