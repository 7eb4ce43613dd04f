"""Fences: every write of a lease is refused after a takeover, welcome before one, and may be repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from store_bench import FAILURE, WRITES, Bench, decision, epoch, result

from kdsearch.core.errors import LeaseLostError
from kdsearch.store import leases, reads
from kdsearch.store.leases import MAX_DEATHS, Lease

ENDS = {
    "give_back": "given back",
    "pause": "paused",
    "retry_smaller": "out_of_memory",
    "fail_attempt": "hang",
    "finish_complete": "finished",
    "finish_rejected": "finished",
    "finish_failed": "exception",
}
"""How the attempt is on record after a write that ends it."""


def swept(bench: Bench) -> Lease:
    """A lease that ran out and was swept, and that nobody has taken since."""
    lease = bench.start()
    bench.expire()
    assert bench.sweep() == 1
    return lease


@pytest.mark.parametrize("write", WRITES)
def test_a_zombie_writes_nothing(crowded: Bench, write: str) -> None:
    zombie = swept(crowded)
    heir = crowded.take("w2")
    assert heir is not None
    before = crowded.snapshot()
    with pytest.raises(LeaseLostError, match="w1"):
        WRITES[write](crowded.engine, zombie)
    assert crowded.snapshot() == before
    WRITES[write](crowded.engine, heir)


@pytest.mark.parametrize("write", [w for w in WRITES if w != "pause"])
@pytest.mark.parametrize("part", ["attempt", "worker_id", "repeat", "number", "study_id"])
def test_every_part_of_the_fence_counts(crowded: Bench, write: str, part: str) -> None:
    """Of a repeat, so that each part can be wrong alone."""
    lease = crowded.repeat_of(seed=1)
    other = "w9" if part == "worker_id" else getattr(lease, part) + 1
    before = crowded.snapshot()
    with pytest.raises(LeaseLostError):
        WRITES[write](crowded.engine, replace(lease, **{part: other}))
    with pytest.raises(LeaseLostError):  # the trial itself is finished
        WRITES[write](crowded.engine, replace(lease, repeat=0))
    assert crowded.snapshot() == before
    WRITES[write](crowded.engine, lease)
    assert crowded.snapshot() != before or write in ("renew", "record_latency")  # known of the trial


@pytest.mark.parametrize("write", [w for w in WRITES if w not in ("fail_attempt", "renew")])
def test_a_lease_that_ran_out_is_not_lost_before_somebody_takes_the_trial(crowded: Bench, write: str) -> None:
    late = swept(crowded)
    WRITES[write](crowded.engine, late)
    ended = reads.attempts(crowded.engine, crowded.study.id, 0)[0].ended
    assert ended == ENDS.get(write, "lost")
    assert crowded.column("deaths") == (ended == "lost"), "who delivers is not dead"


@pytest.mark.parametrize("deaths", [0, MAX_DEATHS - 1])
def test_who_hangs_after_its_lease_was_swept_says_where(crowded: Bench, deaths: int) -> None:
    late = crowded.start()
    for _ in range(deaths):
        crowded.expire()
        crowded.sweep()
        late = crowded.take("w1") or late
    crowded.expire()
    crowded.sweep()
    for _ in range(2):  # said twice, counted once
        leases.fail_attempt(crowded.engine, late, "hang", "stuck here")
    last = reads.attempts(crowded.engine, crowded.study.id, 0)[-1]
    assert (last.ended, last.traceback) == ("hang", "stuck here")
    assert crowded.column("deaths") == deaths + 1
    row = reads.trial(crowded.engine, crowded.study.id, 0)
    if deaths:
        assert row.failure is not None and row.failure.traceback == "stuck here"
    else:
        assert row.state == "waiting"
        with pytest.raises(LeaseLostError):  # it said that it is lost
            leases.renew(crowded.engine, late, 60)


def test_a_holder_that_was_taken_for_dead_has_its_lease_back(crowded: Bench) -> None:
    late = swept(crowded)
    leases.renew(crowded.engine, late, 60)
    assert (crowded.column("state"), crowded.column("deaths"), crowded.column("attempt")) == ("running", 0, 1)
    assert crowded.take("w2") is None
    (attempt,) = reads.attempts(crowded.engine, crowded.study.id, 0)
    assert (attempt.ended, attempt.ended_at) == (None, None)


@pytest.mark.parametrize("write", ["give_back", "retry_smaller", "fail_attempt", "pause"])
def test_what_its_holder_let_go_is_not_had_back_by_renewing(crowded: Bench, write: str) -> None:
    lease = crowded.start()
    WRITES[write](crowded.engine, lease)
    with pytest.raises(LeaseLostError):
        leases.renew(crowded.engine, lease, 60)


@pytest.mark.parametrize("write", WRITES)
def test_every_write_may_be_repeated(crowded: Bench, write: str) -> None:
    lease = crowded.start()
    WRITES[write](crowded.engine, lease)
    before = crowded.snapshot()
    WRITES[write](crowded.engine, lease)
    assert crowded.snapshot() == before
    ended = reads.attempts(crowded.engine, crowded.study.id, 0)[0].ended
    assert ended == ENDS.get(write)


@pytest.mark.parametrize("write", ["finish_complete", "record_epoch", "finish_failed", "record_checkpoint"])
def test_what_was_paused_promoted_or_closed_takes_nothing_late(crowded: Bench, write: str) -> None:
    engine, study_id = crowded.engine, crowded.study.id
    lease = crowded.start()
    leases.pause(engine, lease, decision("pause"))
    for step in ("paused", "waiting", "paused again", "stopped"):
        before = crowded.snapshot()
        with pytest.raises(LeaseLostError):
            WRITES[write](engine, lease)
        assert crowded.snapshot() == before, step
        with leases.study_turn(engine, study_id) as turn:
            if step == "paused":
                assert leases.promote(turn, study_id, 0, decision("promote"))
            elif step == "paused again":
                assert leases.close_study(turn, study_id) == [0]
        if step == "waiting":
            heir = crowded.take("w2")
            assert heir is not None
            leases.pause(engine, heir, decision("pause", epoch=3))
    assert crowded.column("state") == "stopped"


def die_out(bench: Bench) -> Lease:
    """A trial that failed since too many workers died; the last attempt's lease."""
    lease = bench.start(worker="w0")
    for death in range(1, MAX_DEATHS + 1):
        bench.expire()
        assert bench.sweep() == 1
        if death < MAX_DEATHS:
            taken = bench.take(f"w{death}")
            assert taken is not None
            lease = taken
    assert bench.column("state") == "failed"
    return lease


def test_a_late_result_of_a_quarantined_trial_counts_once(crowded: Bench) -> None:
    last = die_out(crowded)
    with pytest.raises(LeaseLostError):
        leases.finish_complete(crowded.engine, replace(last, attempt=1, worker_id="w0"), result(), {})
    with pytest.raises(LeaseLostError):
        leases.finish_failed(crowded.engine, last, FAILURE)
    leases.record_epoch(crowded.engine, last, epoch(), "c" * 64)
    for _ in range(2):
        leases.finish_complete(crowded.engine, last, result(0.8), {})
    with pytest.raises(LeaseLostError):
        leases.finish_complete(crowded.engine, last, result(0.7), {})
    row = reads.trial(crowded.engine, crowded.study.id, 0)
    assert (row.state, row.quality, row.failure, row.deaths) == ("complete", 0.8, None, MAX_DEATHS - 1)


def test_a_failure_is_no_quarantine(crowded: Bench) -> None:
    lease = crowded.start()
    leases.finish_failed(crowded.engine, lease, FAILURE)
    with pytest.raises(LeaseLostError):
        leases.finish_complete(crowded.engine, lease, result(), {})


def test_quarantine_names_the_workers_and_keeps_the_last_traceback(crowded: Bench) -> None:
    """Workers that vanish leave no traceback; what one of them said before stays."""
    engine, w1 = crowded.engine, f"w1-{crowded.study.id}"
    leases.fail_attempt(engine, crowded.start(worker="w0"), "crash", "first words")
    second = crowded.take(w1)
    assert second is not None
    assert leases.fail_attempts_of(engine, w1, "crash", "last words") == 1
    assert leases.fail_attempts_of(engine, w1, "crash", "again") == 0
    assert crowded.take("w2") is not None
    crowded.expire()
    assert crowded.sweep() == 1
    failure = reads.trial(engine, crowded.study.id, 0).failure
    assert failure is not None
    assert (failure.kind, failure.traceback) == ("attempts", "last words")
    assert f"w0, {w1}, w2" in failure.message
    rows = reads.attempts(engine, crowded.study.id, 0)
    assert [(r.attempt, r.worker, r.ended) for r in rows] == [
        (1, "w0", "crash"),
        (2, w1, "crash"),
        (3, "w2", "lost"),
    ]


def test_a_trial_that_hangs_to_the_end_says_so(crowded: Bench) -> None:
    lease: Lease | None = crowded.start()
    for _ in range(MAX_DEATHS):
        assert lease is not None
        leases.fail_attempt(crowded.engine, lease, "hang", "stuck in step 7")
        lease = crowded.take()
    failure = reads.trial(crowded.engine, crowded.study.id, 0).failure
    assert failure is not None
    assert (failure.kind, failure.traceback, lease) == ("hang", "stuck in step 7", None)


def test_out_of_memory_costs_no_death_and_is_tried_in_parts(crowded: Bench) -> None:
    lease = crowded.start()
    WRITES["retry_smaller"](crowded.engine, lease)
    assert (crowded.column("deaths"), crowded.column("state")) == (0, "waiting")
    again = crowded.take()
    assert again is not None
    assert (again.accumulate, again.attempt) == (2, 2)
    assert reads.attempts(crowded.engine, crowded.study.id, 0)[0].traceback == "CUDA"


@pytest.mark.parametrize(
    "lie",
    [
        "state = 'running', expires_at = NULL",
        "state = 'running', worker_id = '', expires_at = clock_timestamp()",
        "state = 'complete', finished_at = clock_timestamp()",
        "state = 'failed', finished_at = clock_timestamp()",
        "repeat = 1",
        "optuna_trial_id = NULL",
        "swept = true, state = 'paused'",
        "attempt = 0",
        "told = true",
        "accumulate = 0",
    ],
)
def test_the_tables_refuse_states_that_cannot_be(crowded: Bench, lie: str) -> None:
    leases.give_back(crowded.engine, crowded.start())
    with pytest.raises(IntegrityError), crowded.engine.begin() as connection:
        connection.execute(text(f"UPDATE kdsearch.trial SET {lie} WHERE study_id = {crowded.study.id}"))
