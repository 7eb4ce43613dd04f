"""What the search keeps: decisions, repeats, standings, history, and budgets that are exact."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from store_bench import FAILURE, Bench, config, decision, epoch, latency, new_study, result, scores

from kdsearch.core.records import Standing, TrialConfig
from kdsearch.core.spec import BudgetSpec
from kdsearch.store import leases, preparations, reads, standings, studies, telling, workers
from kdsearch.store.studies import BudgetState


def state(bench: Bench) -> BudgetState:
    with leases.study_turn(bench.engine, bench.study.id) as turn:
        return studies.budget_state(turn, bench.study.id)


def make_ready(bench: Bench, number: int, **changes: int) -> None:
    with leases.study_turn(bench.engine, bench.study.id) as turn:
        leases.insert_ready(
            turn,
            bench.study.id,
            number=number,
            optuna_trial_id=1000 + number,
            config=config(**changes),
            architecture_key="arch",
            origin="sampler",
        )


def ask_for(bench: Bench, *wanted: tuple[int, int]) -> int:
    with leases.study_turn(bench.engine, bench.study.id) as turn:
        return leases.insert_repeats(turn, bench.study.id, wanted)


def test_a_ready_proposal_is_a_trial_that_nobody_had(crowded: Bench) -> None:
    make_ready(crowded, 0)
    row = reads.trial(crowded.engine, crowded.study.id, 0)
    assert (row.state, row.attempt, row.worker, row.origin, row.epochs_run) == (
        "waiting",
        0,
        "",
        "sampler",
        None,
    )
    assert reads.attempts(crowded.engine, crowded.study.id, 0) == []
    lease = crowded.take("w1")
    assert lease is not None
    assert (lease.attempt, lease.config, lease.optuna_trial_id) == (1, config(), 1000)
    assert [a.worker for a in reads.attempts(crowded.engine, crowded.study.id, 0)] == ["w1"]


def test_repeats_are_asked_for_once_and_stay_out_of_every_list(crowded: Bench) -> None:
    engine, study_id = crowded.engine, crowded.study.id
    crowded.complete(0)
    crowded.complete(1)
    crowded.start(2)
    before = (reads.trials(engine, study_id), reads.history(engine, study_id, "p90_ms", with_epochs=True))
    told = telling.untold(engine, study_id)
    wanted = [(0, 1), (0, 2), (1, 1), (0, config().seed), (2, 1), (7, 1)]
    assert ask_for(crowded, *wanted) == 3  # not its own seed, nothing unfinished, nothing unknown
    assert ask_for(crowded, *wanted) == 0
    first, second = crowded.take(can_measure=False), crowded.take()
    assert first is not None
    assert second is not None
    assert [(x.number, x.repeat, x.config.seed, x.optuna_trial_id) for x in (first, second)] == [
        (0, 1, 1, None),
        (0, 2, 2, None),
    ]
    assert first.latency == latency()
    leases.record_epoch(engine, first, epoch(quality=0.5), "c" * 64)
    leases.finish_complete(engine, first, result(0.7), {})
    leases.finish_failed(engine, second, FAILURE)
    assert (
        reads.trials(engine, study_id),
        reads.history(engine, study_id, "p90_ms", with_epochs=True),
    ) == before
    assert telling.untold(engine, study_id) == told
    assert reads.epochs(engine, study_id, 0) == []
    done, failed, open_one = reads.repeats(engine, study_id)
    assert (done.number, done.seed, done.state, done.quality, done.scores) == (
        0,
        1,
        "complete",
        0.7,
        scores(0.7),
    )
    assert (failed.state, failed.failure, open_one.state, open_one.seed) == ("failed", FAILURE, "waiting", 1)
    budget = state(crowded)
    assert (budget.num_trials, budget.num_failed, budget.num_open, budget.num_open_repeats) == (3, 0, 1, 1)
    assert ask_for(crowded, (0, 3)) == 1
    assert reads.repeats(engine, study_id)[2].repeat == 3


def test_trials_come_before_repeats_and_low_numbers_first(crowded: Bench) -> None:
    crowded.complete(0)
    ask_for(crowded, (0, 1))
    for number in (3, 2):
        make_ready(crowded, number)
    leases.pause(crowded.engine, crowded.start(1), decision("pause"))
    with leases.study_turn(crowded.engine, crowded.study.id) as turn:
        assert leases.promote(turn, crowded.study.id, 1, decision("promote"))
        assert not leases.promote(turn, crowded.study.id, 1, decision("promote"))
    taken = [crowded.take() for _ in range(5)]
    assert [(x.number, x.repeat) for x in taken if x is not None] == [(1, 0), (2, 0), (3, 0), (0, 1)]


def test_nothing_of_a_paused_study_is_handed_out(crowded: Bench) -> None:
    make_ready(crowded, 0)
    with leases.study_turn(crowded.engine, crowded.study.id) as turn:
        studies.set_state(turn, crowded.study.id, "paused")
    assert crowded.take() is None
    studies.reopen(crowded.engine, crowded.study.id)
    assert crowded.take() is not None


def test_checkpoints_move_on_one_by_one(crowded: Bench) -> None:
    lease = crowded.start()
    leases.record_epoch(crowded.engine, lease, epoch(1), "a" * 64)
    for _ in range(2):  # the answer to the first time was lost
        leases.record_checkpoint(crowded.engine, lease, "b" * 64, epochs_run=1)
    leases.give_back(crowded.engine, lease)
    heir = crowded.take()
    assert heir is not None
    assert (heir.checkpoint, heir.previous_checkpoint) == ("b" * 64, "a" * 64)
    assert reads.trial(crowded.engine, crowded.study.id, 0).epochs_run == 1


def test_every_decision_is_kept_with_its_figures(crowded: Bench) -> None:
    engine, study_id = crowded.engine, crowded.study.id
    lease = crowded.start()
    leases.record_decision(engine, lease, decision(epoch=1))
    leases.pause(engine, lease, decision("pause", epoch=3, inputs={"forecast": 0.7, "note": None}))
    crowded.complete(1)
    with leases.study_turn(engine, study_id) as turn:
        leases.decide(turn, study_id, 1, decision("continue", "duplicate", epoch=None))
        assert leases.promote(turn, study_id, 0, decision("promote"))
    heir = crowded.take()
    assert heir is not None
    leases.pause(engine, heir, decision("pause", epoch=4))
    with leases.study_turn(engine, study_id) as turn:
        assert leases.close_study(turn, study_id) == [0]
        assert leases.close_study(turn, study_id) == []
    rows = reads.decisions(engine, study_id, 0)
    assert [(r.attempt, r.decision.action, r.decision.rule) for r in rows] == [
        (1, "continue", "front"),
        (1, "pause", "front"),
        (1, "promote", "front"),
        (2, "pause", "front"),
        (2, "stop", "closed"),
    ]
    assert rows[1].decision == decision("pause", epoch=3, inputs={"forecast": 0.7, "note": None})
    assert [r.decision.rule for r in reads.decisions(engine, study_id, 1)] == ["duplicate"]
    row = reads.trial(engine, study_id, 0)
    assert row.state == "stopped"
    assert row.finished_at is not None
    assert [(u.number, u.state) for u in telling.untold(engine, study_id)] == [
        (0, "stopped"),
        (1, "complete"),
    ]


def test_standings_are_replaced_as_a_whole(crowded: Bench) -> None:
    crowded.complete(0)
    crowded.complete(1)
    one = Standing(number=0, quality=0.9, low=0.8, high=0.95, on_front=0.5, seeds=(17, 1))
    two = Standing(number=1, quality=0.8, low=0.7, high=0.85, on_front=0.0, seeds=(17,))
    for wanted in ([two, one], [two], []):
        standings.set_standings(crowded.engine, crowded.study.id, wanted)
        found = reads.standings(crowded.engine, crowded.study.id)
        assert found == sorted(wanted, key=lambda standing: standing.number)


def test_workers_that_end_a_study_at_once_do_not_meet(crowded: Bench) -> None:
    """Each puts its own standings, again and again; what is there at the end is one worker's, whole."""
    for number in range(3):
        crowded.complete(number)

    def put(worker: int) -> None:
        quality = worker / 10
        mine = [
            Standing(number=n, quality=quality, low=0.0, high=1.0, on_front=0.5, seeds=(17,))
            for n in range(3)
        ]
        for _ in range(10):
            standings.set_standings(crowded.engine, crowded.study.id, mine)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(4)))
    found = reads.standings(crowded.engine, crowded.study.id)
    assert [standing.number for standing in found] == [0, 1, 2]
    assert len({standing.quality for standing in found}) == 1


def test_history_is_what_happened(crowded: Bench) -> None:
    engine, study_id = crowded.engine, crowded.study.id
    crowded.complete(0, 0.9, 1.5)
    lease = crowded.start(1, seed=4)
    leases.record_epoch(engine, lease, epoch(1, quality=0.5), "a" * 64)
    leases.record_epoch(engine, lease, epoch(2, quality=0.75), "b" * 64)
    first, second = reads.history(engine, study_id, "p50_ms", with_epochs=True)
    assert (first.number, first.state, first.latency_ms, first.quality, first.qualities) == (
        0,
        "complete",
        1.0,
        0.9,
        {},
    )
    assert (second.config, second.qualities, second.quality) == (config(seed=4), {1: 0.5, 2: 0.75}, None)
    assert isinstance(second.config, TrialConfig)
    with engine.begin() as connection:
        bare = reads.history(connection, study_id, "p90_ms", with_epochs=False)
    assert [(t.latency_ms, dict(t.qualities)) for t in bare] == [(1.5, {}), (None, {})]


# ---------------------------------------------------------------- budgets


def test_epochs_count_as_run_where_a_trial_rests_and_as_planned_where_it_is_open(crowded: Bench) -> None:
    engine = crowded.engine
    studies.raise_budget(engine, crowded.study.id, BudgetSpec(trials=40, epochs=30, failed=3))
    empty = state(crowded)
    assert (empty.epochs_reserved, empty.max_epochs, empty.num_paused) == (0, 30, 0)
    crowded.complete(0)  # 2 epochs
    leases.finish_rejected(engine, crowded.start(1, epochs=9), {"latency_ms": 1.0})  # none
    rest = crowded.start(2, epochs=9)
    leases.record_epoch(engine, rest, epoch(1), "a" * 64)
    leases.record_epoch(engine, rest, epoch(2), "b" * 64)
    leases.record_checkpoint(engine, rest, "c" * 64, epochs_run=2)
    assert state(crowded).epochs_reserved == 2 + 9
    leases.pause(engine, rest, decision("pause"))
    make_ready(crowded, 3, epochs=5)
    budget = state(crowded)
    assert (budget.epochs_reserved, budget.num_paused, budget.num_open) == (2 + 2 + 5, 1, 1)
    with leases.study_turn(engine, crowded.study.id) as turn:
        assert leases.promote(turn, crowded.study.id, 2, decision("promote"))
    assert state(crowded).epochs_reserved == 2 + 9 + 5
    ask_for(crowded, (0, 1))
    assert state(crowded).epochs_reserved == 2 + 9 + 5
    row = reads.study(engine, crowded.study.name)
    assert (row.budget_epochs, row.epochs_run) == (30, 4)


def test_gpu_time_is_that_of_leases(crowded: Bench) -> None:
    """However seldom a worker says so, and without the time between two leases."""
    engine, me = crowded.engine, f"gpu-{crowded.study.id}"
    workers.register(
        engine, workers.NewWorker(id=me, study_id=crowded.study.id, host="h", pid=1, device="cuda")
    )

    def seconds() -> float:
        studies.touch_gpu(engine, me)
        return reads.study(engine, crowded.study.name).gpu_seconds

    def shift(what: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(what), {"id": crowded.study.id, "me": me})

    assert seconds() == 0
    leases.finish_failed(engine, crowded.start(0, worker=me), FAILURE)
    shift("UPDATE kdsearch.worker SET gpu_at = clock_timestamp() - interval '50 seconds' WHERE id = :me")
    shift(
        "UPDATE kdsearch.attempt SET started_at = clock_timestamp() - interval '40 seconds', "
        "ended_at = clock_timestamp() - interval '20 seconds' WHERE study_id = :id"
    )
    assert seconds() == pytest.approx(20, abs=5)
    before = seconds()
    assert seconds() == before  # no lease
    crowded.start(1, worker=me)
    shift("UPDATE kdsearch.worker SET gpu_at = clock_timestamp() - interval '3 days' WHERE id = :me")
    shift("UPDATE kdsearch.attempt SET started_at = started_at - interval '2 days' WHERE ended IS NULL")
    assert seconds() == before + 60
    studies.raise_budget(engine, crowded.study.id, BudgetSpec(gpu_hours=(before + 60) / 3600))
    assert state(crowded).out_of_time
    studies.raise_budget(engine, crowded.study.id, BudgetSpec(gpu_hours=9))
    assert not state(crowded).out_of_time


def test_a_further_budget_opens_a_done_study_too(crowded: Bench) -> None:
    engine, study_id, name = crowded.engine, crowded.study.id, crowded.study.name
    for budget in (BudgetSpec(epochs=5), BudgetSpec(epochs=6), BudgetSpec(epochs=6, gpu_hours=1.5)):
        with leases.study_turn(engine, study_id) as turn:
            studies.set_state(turn, study_id, "done")
        studies.raise_budget(engine, study_id, budget)
        assert studies.find_study(engine, name).state == "open"
    row = reads.study(engine, name)
    assert (row.budget_epochs, row.budget_gpu_hours) == (6, 1.5)
    made = studies.create_study(engine, new_study(f"{name}-2", budget=BudgetSpec(epochs=7, gpu_hours=2)))
    row = reads.study(engine, made.name)
    assert (row.budget_epochs, row.budget_gpu_hours, row.gpu_seconds, row.epochs_run) == (7, 2.0, 0.0, 0)


def test_a_trial_that_nobody_can_measure_says_why_it_stopped(crowded: Bench) -> None:
    make_ready(crowded, 0)
    with leases.study_turn(crowded.engine, crowded.study.id) as turn:
        assert studies.stop_unmeasured(turn, crowded.study.id) == 1
    (row,) = reads.decisions(crowded.engine, crowded.study.id, 0)
    assert (row.decision.action, row.decision.rule) == ("stop", "budget")


def test_a_dead_workers_preparation_is_free_at_once(crowded: Bench) -> None:
    assert preparations.take_preparation(crowded.engine, crowded.study.id, "w-dead", 60) is not None
    assert preparations.take_preparation(crowded.engine, crowded.study.id, "w2", 60) is None
    leases.fail_attempts_of(crowded.engine, "w-dead", "crash", "")
    heir = preparations.take_preparation(crowded.engine, crowded.study.id, "w2", 60)
    assert heir is not None
    assert heir.attempt == 2
