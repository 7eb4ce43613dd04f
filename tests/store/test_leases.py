"""Leases: taken once, expiring, taken over, fenced; finished once however often that is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from store_bench import Bench, config, decision, epoch, latency, result, scores

from kdsearch.core.errors import LeaseLostError
from kdsearch.core.records import Failure
from kdsearch.store import leases, reads, telling
from kdsearch.store.leases import MAX_DEATHS, Lease
from kdsearch.store.leftovers import forget_checkpoints, left_checkpoints

FAILURE = Failure(kind="exception", message="boom", traceback="line 1")


def test_a_trial_from_start_to_end(bench: Bench) -> None:
    lease = bench.start()
    leases.record_latency(bench.engine, lease, latency())
    leases.record_epoch(bench.engine, lease, epoch(1), "c" * 64)
    leases.record_epoch(bench.engine, lease, epoch(2), "d" * 64)
    leases.finish_complete(bench.engine, lease, result(0.93), {"latency_ms": -0.5})
    row = reads.trial(bench.engine, bench.study.id, 0)
    assert (row.state, row.quality, row.latency_ms, row.feasible) == ("complete", 0.93, 1.5, True)
    assert row.scores == scores(0.93)
    assert row.latency == latency()
    assert [e.epoch for e in reads.epochs(bench.engine, bench.study.id, 0)] == [1, 2]
    assert bench.column("checkpoint") == "d" * 64
    assert bench.column("expires_at") is None


def test_the_configuration_survives_the_database(bench: Bench) -> None:
    bench.start(worker="gone")
    bench.expire()
    bench.sweep()
    lease = bench.take()
    assert lease is not None
    assert lease.config == config()
    assert lease.config.key == config().key == bench.column("config_key")


def test_the_same_worker_with_an_old_attempt_is_a_zombie(bench: Bench) -> None:
    first = bench.start(worker="w1")
    leases.give_back(bench.engine, first)
    second = bench.take("w1")
    assert second is not None
    assert second.attempt == first.attempt + 1
    with pytest.raises(LeaseLostError):
        leases.renew(bench.engine, first, 60)
    leases.renew(bench.engine, second, 60)


def test_a_finished_trial_takes_no_other_end(bench: Bench) -> None:
    lease = bench.start()
    leases.finish_complete(bench.engine, lease, result(0.9), {})
    for other in (
        lambda: leases.finish_complete(bench.engine, lease, result(0.91), {}),
        lambda: leases.finish_complete(bench.engine, lease, result(0.9), {"size_mb": -1.0}),
        lambda: leases.finish_failed(bench.engine, lease, FAILURE),
        lambda: leases.finish_rejected(bench.engine, lease, {}),
        lambda: leases.finish_complete(bench.engine, replace(lease, worker_id="w9"), result(0.9), {}),
    ):
        with pytest.raises(LeaseLostError):
            other()
    assert bench.column("quality") == 0.9


def test_a_renewed_lease_is_not_swept_and_an_expired_one_is_once(bench: Bench) -> None:
    lease = bench.start(ttl_s=60)
    assert bench.sweep() == 0
    bench.expire()
    leases.renew(bench.engine, lease, 60)
    assert bench.sweep() == 0
    bench.expire()
    assert (bench.sweep(), bench.sweep()) == (1, 0)
    assert bench.column("state") == "waiting"


def test_a_trial_that_takes_its_workers_with_it_fails_after_some(bench: Bench) -> None:
    bench.start(worker="w0")
    for death in range(1, MAX_DEATHS + 1):
        bench.expire()
        assert bench.sweep() == 1
        if death < MAX_DEATHS:
            assert bench.take(f"w{death}") is not None
    assert bench.take("late") is None
    row = reads.trial(bench.engine, bench.study.id, 0)
    assert row.state == "failed"
    assert row.failure is not None
    assert row.failure.kind == "attempts"
    assert f"w{MAX_DEATHS - 1}" in row.failure.message


def test_giving_back_costs_no_death(bench: Bench) -> None:
    lease: Lease | None = bench.start()
    for _ in range(3 * MAX_DEATHS):
        assert lease is not None
        leases.give_back(bench.engine, lease)
        lease = bench.take()
    assert lease is not None
    assert lease.attempt == 3 * MAX_DEATHS + 1


def test_an_heir_goes_on_from_the_checkpoint_with_the_latency(bench: Bench) -> None:
    lease = bench.start()
    leases.record_latency(bench.engine, lease, latency(2.5))
    leases.record_epoch(bench.engine, lease, epoch(), "c" * 64)
    bench.expire()
    bench.sweep()
    heir = bench.take(can_measure=False)
    assert heir is not None
    assert heir.checkpoint == "c" * 64
    assert heir.latency == latency(2.5)
    assert heir.number == lease.number


def test_only_a_measuring_worker_takes_what_is_not_measured(bench: Bench) -> None:
    leases.give_back(bench.engine, bench.start(0))
    measured = bench.start(1)
    leases.record_latency(bench.engine, measured, latency())
    leases.give_back(bench.engine, measured)
    first, second = bench.take(can_measure=False), bench.take(can_measure=False)
    assert first is not None
    assert (first.number, second) == (1, None)
    third = bench.take(can_measure=True)
    assert third is not None
    assert third.number == 0


def test_numbers_that_are_none_and_text_that_postgres_refuses(bench: Bench) -> None:
    lease = bench.start(0)
    report = replace(epoch(loss=float("nan")), scores=scores(nll=float("inf")))
    leases.record_epoch(bench.engine, lease, report, "c" * 64)
    (row,) = reads.epochs(bench.engine, bench.study.id, 0)
    assert row.losses["total"] != row.losses["total"]
    assert row.scores is not None
    assert row.scores.nll == float("inf")
    ugly = Failure(kind="exception", message="a\0b \ud800 é", traceback="x\0")
    leases.finish_failed(bench.engine, lease, ugly)
    leases.finish_failed(bench.engine, lease, ugly)
    failure = reads.trial(bench.engine, bench.study.id, 0).failure
    assert failure is not None
    assert failure.message.startswith("ab ")


def test_what_is_finished_is_told_once(bench: Bench) -> None:
    done, rejected, failed = bench.start(0), bench.start(1), bench.start(2)
    bench.start(3)
    leases.record_latency(bench.engine, done, latency())
    leases.finish_complete(bench.engine, done, result(0.9), {"latency_ms": -0.5})
    leases.finish_rejected(bench.engine, rejected, {"latency_ms": 3.0})
    leases.finish_failed(bench.engine, failed, FAILURE)
    rows = telling.untold(bench.engine, bench.study.id)
    assert [(r.number, r.state, r.optuna_trial_id) for r in rows] == [
        (0, "complete", 1000),
        (1, "rejected", 1001),
        (2, "failed", 1002),
    ]
    assert (rows[0].quality, rows[0].latency, rows[0].constraints) == (0.9, latency(), {"latency_ms": -0.5})
    assert (rows[1].constraints, rows[2].constraints) == ({"latency_ms": 3.0}, {})
    for number in (0, 1, 2, 3):
        telling.mark_told(bench.engine, bench.study.id, number)
    assert telling.untold(bench.engine, bench.study.id) == []
    assert bench.column("told", 3) is False


def test_waiting_trials_are_shared_out_without_the_turn_too(bench: Bench) -> None:
    """SKIP LOCKED: takers that do not wait for each other never get the same trial."""
    for number in range(20):
        leases.give_back(bench.engine, bench.start(number))

    def worker(name: str) -> list[int]:
        mine = []
        while True:
            with bench.engine.begin() as connection:
                lease = leases.take_waiting(connection, bench.study.id, name, 60, can_measure=True)
            if lease is None:
                return mine
            mine.append(lease.number)

    with ThreadPoolExecutor(6) as pool:
        taken = [n for mine in pool.map(worker, "abcdef") for n in mine]
    assert sorted(taken) == list(range(20))


def test_checkpoints_of_trials_that_were_stopped_are_on_record_until_they_are_forgotten(bench: Bench) -> None:
    stopped, running = bench.start(0, seed=1), bench.start(1, seed=2)
    for lease in (stopped, running):
        leases.record_checkpoint(bench.engine, lease, f"{lease.number}" * 64, epochs_run=1)
        leases.record_checkpoint(bench.engine, lease, "ab"[lease.number] * 64, epochs_run=2)
    leases.pause(bench.engine, stopped, decision("pause"))
    assert left_checkpoints(bench.engine, bench.study.id) == []
    with leases.study_turn(bench.engine, bench.study.id) as turn:
        assert leases.close_study(turn, bench.study.id) == [0]
    assert set(left_checkpoints(bench.engine, bench.study.id)) == {"0" * 64, "a" * 64}
    for _ in range(2):
        forget_checkpoints(bench.engine, bench.study.id)
        assert left_checkpoints(bench.engine, bench.study.id) == []
    leases.give_back(bench.engine, running)
    heir = bench.take("w2")
    assert heir is not None
    assert (heir.checkpoint, heir.previous_checkpoint) == ("b" * 64, "1" * 64)


def test_an_heir_that_passed_a_damaged_checkpoint_over_names_the_one_that_is_whole(bench: Bench) -> None:
    lease = bench.start()
    for letter in "ab":
        leases.record_checkpoint(bench.engine, lease, letter * 64, epochs_run=1)
    leases.record_epoch(bench.engine, lease, epoch(2), "c" * 64, "a" * 64)
    leases.give_back(bench.engine, lease)
    heir = bench.take("w2")
    assert heir is not None
    assert (heir.checkpoint, heir.previous_checkpoint) == ("c" * 64, "a" * 64)
