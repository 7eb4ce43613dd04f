"""Studies, budgets, caches, workers and readings of the test split, and the rows that people read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text
from store_bench import SPEC, Bench, latency, new_study, result, scores

from kdsearch.core.errors import ConflictError, NotFoundError
from kdsearch.core.records import Failure
from kdsearch.core.spec import BudgetSpec
from kdsearch.store import cache, leases, preparations, readings, reads, studies, workers
from kdsearch.store.connect import Store


def finish(bench: Bench, number: int, quality: float, ms: float, *, excess: float = -1.0) -> None:
    lease = bench.start(number)
    leases.record_latency(bench.engine, lease, latency(ms))
    leases.finish_complete(bench.engine, lease, result(quality), {"latency_ms": excess})


def test_a_study_is_found_as_it_was_made(store: Store) -> None:
    made = studies.create_study(store.engine, new_study())
    found = studies.find_study(store.engine, "spam")
    assert made == found
    assert found.spec_json == SPEC
    assert (found.state, found.prepared) == ("open", None)
    assert preparations.preparation(store.engine, made.id).state == "waiting"


def test_a_taken_name_is_a_conflict_also_when_many_want_it(store: Store) -> None:
    def create(_: int) -> bool:
        try:
            studies.create_study(store.engine, new_study())
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(create, range(6))) == 1


def test_an_unknown_name_is_answered_with_those_spelled_alike(bench: Bench) -> None:
    for find in (studies.find_study, reads.study):
        with pytest.raises(NotFoundError, match="spma") as caught:
            find(bench.engine, "spma")
        assert "spam" in caught.value.hint
        with pytest.raises(NotFoundError) as caught:
            find(bench.engine, "qqqqqq")
        assert "kdsearch study list" in caught.value.hint


def test_the_budget_counts_every_number(bench: Bench) -> None:
    with leases.study_turn(bench.engine, bench.study.id) as turn:
        empty = studies.budget_state(turn, bench.study.id)
    assert (empty.num_trials, empty.max_trials, empty.num_failed, empty.max_failed, empty.num_open) == (
        0,
        40,
        0,
        3,
        0,
    )
    finish(bench, 0, 0.9, 1.0)
    leases.finish_rejected(bench.engine, bench.start(1), {"latency_ms": 1.0})
    leases.finish_failed(bench.engine, bench.start(2), Failure(kind="hang", message="stuck"))
    leases.give_back(bench.engine, bench.start(3))
    bench.start(4)
    with leases.study_turn(bench.engine, bench.study.id) as turn:
        state = studies.budget_state(turn, bench.study.id)
        assert leases.count_trials(turn, bench.study.id) == 5
        assert leases.known_numbers(turn, bench.study.id) == {0, 1, 2, 3, 4}
        assert studies.awaits_measuring(turn, bench.study.id)
    assert (state.num_trials, state.num_failed, state.num_open, state.out_of_time) == (5, 1, 2, False)


def test_hours_are_those_in_which_somebody_worked(bench: Bench) -> None:
    def active() -> float:
        return reads.study(bench.engine, "spam").active_seconds

    def last_active(ago: str) -> None:
        query = f"UPDATE kdsearch.study SET last_active = clock_timestamp() - interval '{ago}'"
        with bench.engine.begin() as connection:
            connection.execute(text(query))

    studies.touch_active(bench.engine, bench.study.id)
    assert active() == 0
    last_active("10 seconds")
    studies.touch_active(bench.engine, bench.study.id)
    assert 10 <= active() < 20
    last_active("3 days")
    before = active()
    studies.touch_active(bench.engine, bench.study.id)
    assert active() == before + 60
    with bench.engine.begin() as connection:
        connection.execute(text("UPDATE kdsearch.study SET active_seconds = 2 * 3600"))
        assert studies.budget_state(connection, bench.study.id).out_of_time
    studies.raise_budget(bench.engine, bench.study.id, BudgetSpec(trials=50, hours=3, failed=4))
    with bench.engine.begin() as connection:
        state = studies.budget_state(connection, bench.study.id)
    assert (state.out_of_time, state.max_trials, state.max_failed) == (False, 50, 4)


def test_a_done_study_opens_again_when_its_budget_changes(bench: Bench) -> None:
    with bench.engine.begin() as connection:
        studies.set_state(connection, bench.study.id, "done")
    studies.raise_budget(bench.engine, bench.study.id, BudgetSpec(trials=40, hours=2.0, failed=3))
    assert studies.find_study(bench.engine, "spam").state == "done"
    studies.raise_budget(bench.engine, bench.study.id, BudgetSpec(trials=41, hours=None, failed=3))
    assert studies.find_study(bench.engine, "spam").state == "open"
    assert reads.study(bench.engine, "spam").budget_hours is None


def test_the_row_of_a_study(bench: Bench) -> None:
    finish(bench, 0, 0.9, 1.0)
    finish(bench, 1, 0.8, 2.0)
    bench.start(2)
    studies.create_study(bench.engine, new_study("later"))
    studies.set_teacher(
        bench.engine, bench.study.id, scores(0.97, agreement=None), latency(80.0, size_mb=90.0)
    )
    later, row = reads.studies(bench.engine)
    assert (later.name, dict(later.counts), later.teacher) == ("later", {}, None)
    assert row == reads.study(bench.engine, "spam")
    assert dict(row.counts) == {"complete": 2, "running": 1}
    assert (row.quality_name, row.latency_name) == ("f1:spam", "p90_ms")
    assert row.teacher is not None
    assert (row.teacher.quality, row.teacher.size_mb) == (0.97, 90.0)
    assert row.teacher.latency is not None
    assert row.teacher.latency.p90_ms == 80.0
    assert row.created_at.utcoffset() == timedelta(0)


def test_a_teacher_without_latency(bench: Bench) -> None:
    studies.set_teacher(bench.engine, bench.study.id, scores(0.97), None)
    teacher = reads.study(bench.engine, "spam").teacher
    assert teacher is not None
    assert (teacher.latency, teacher.size_mb) == (None, None)


def test_rows_of_trials(bench: Bench) -> None:
    finish(bench, 0, 0.9, 1.0)
    bench.start(1)
    done, running = reads.trials(bench.engine, bench.study.id)
    assert reads.trials(bench.engine, bench.study.id, "running") == [running]
    assert reads.trial(bench.engine, bench.study.id, 0) == done
    assert done.params["textcnn.kernel_sizes"] == (2, 3, 4)
    assert done.params["offline.lambda"] == 0.5
    assert done.params["learning_rate"] == 1e-05
    assert (done.artifact, done.validation_logits) == ("a" * 64, "b" * 64)
    assert (running.quality, running.scores, running.latency_ms, running.feasible) == (
        None,
        None,
        None,
        False,
    )
    assert running.finished_at is None
    with pytest.raises(NotFoundError, match="no trial 7"):
        reads.trial(bench.engine, bench.study.id, 7)


def test_the_front_filters_first(bench: Bench) -> None:
    finish(bench, 0, 0.80, 1.0)
    finish(bench, 1, 0.90, 2.0)
    finish(bench, 2, 0.85, 3.0)  # dominated
    finish(bench, 3, 0.99, 0.5, excess=0.1)  # infeasible: dominates nobody
    finish(bench, 4, 0.95, 4.0)
    bench.start(5)
    rows = reads.trials(bench.engine, bench.study.id)
    assert [row.number for row in reads.front(rows, within_ms=None)] == [0, 1, 4]
    assert [row.number for row in reads.front(rows, within_ms=2.0)] == [0, 1]
    assert reads.front(rows, within_ms=0.1) == []


def test_a_cache_keeps_every_answer_once(store: Store) -> None:
    assert cache.find(store.engine, "signals", "k") == []
    cache.add(store.engine, "signals", "k", "a" * 64, {"rows": [1, 2]})
    cache.add(store.engine, "signals", "k", "a" * 64, {"rows": []})
    cache.add(store.engine, "signals", "k", "b" * 64, {})
    cache.add(store.engine, "latency", "k", "c" * 64, {})
    found = cache.find(store.engine, "signals", "k")
    assert [(entry.sha256, entry.meta) for entry in found] == [("a" * 64, {"rows": [1, 2]}), ("b" * 64, {})]


def test_workers_come_and_go(bench: Bench) -> None:
    worker = workers.NewWorker(
        id="w1", study_id=bench.study.id, host="h", pid=7, device="cpu", profile_key="p"
    )
    workers.register(bench.engine, worker)
    (row,) = reads.workers(bench.engine, bench.study.id)
    assert (row.id, row.state, row.pid) == ("w1", "active", 7)
    workers.seen(bench.engine, "w1")
    (seen,) = reads.workers(bench.engine, bench.study.id)
    assert seen.seen_at > row.seen_at
    workers.retire(bench.engine, "w1")
    assert reads.workers(bench.engine, bench.study.id)[0].state == "retired"


def test_the_test_split_is_read_once_per_trial(bench: Bench) -> None:
    finish(bench, 0, 0.9, 1.0)
    finish(bench, 1, 0.9, 1.0)
    assert readings.find(bench.engine, bench.study.id, 0) is None
    assert readings.record(bench.engine, bench.study.id, 0, {"f1": 0.8}) == {"f1": 0.8}
    assert readings.record(bench.engine, bench.study.id, 0, {"f1": 0.9}) == {"f1": 0.8}
    assert readings.count(bench.engine, bench.study.id) == 1
    readings.record(bench.engine, bench.study.id, 1, {"f1": 0.7})
    assert readings.count(bench.engine, bench.study.id) == 2
