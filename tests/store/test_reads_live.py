"""What goes on in a study: whether anything changed, who runs what, what went wrong, what matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from store_bench import FAILURE, Bench, decision, epoch, latency, result

from kdsearch.core.errors import NotFoundError
from kdsearch.core.records import Latency
from kdsearch.store import controls, leases, reads, reads_live, requests, studies
from kdsearch.store.importances import set_importances
from kdsearch.store.leases import Lease

CONFUSION = ((50, 2), (3, 5))


def test_whatever_people_see_gives_another_token(bench: Bench) -> None:
    engine, study = bench.engine, bench.study
    lease: list[Lease] = []
    steps: list[Callable[[], object]] = [
        lambda: lease.append(bench.start()),
        lambda: leases.record_epoch(engine, lease[0], epoch(), "c" * 64),
        lambda: leases.pause(engine, lease[0], decision("pause")),
        lambda: bench.complete(1),
        lambda: bench.start(2),
        lambda: requests.file(engine, study.name, "export", {"trial": 1}),
        lambda: controls.pause(engine, study.name),
        lambda: controls.extend(engine, study.name, trials=1),
    ]
    seen = [reads_live.change(engine, study.id)]
    for step in steps:
        step()
        seen.append(reads_live.change(engine, study.id))
        assert reads_live.change(engine, study.id) == seen[-1]
    assert len({change.token for change in seen}) == len(steps) + 1
    assert (seen[-1].num_trials, seen[-1].num_finished, seen[-1].state) == (3, 1, "paused")
    with pytest.raises(NotFoundError):
        reads_live.change(engine, study.id + 1)


def test_who_runs_what_and_for_how_long(bench: Bench) -> None:
    lease = bench.start(0, worker="w1", epochs=4)
    bench.start(1, worker="w2")
    bench.complete(2)
    leases.record_epoch(bench.engine, lease, replace(epoch(1), seconds=100.0), "c" * 64)
    first, second = reads_live.running(bench.engine, bench.study.id)
    assert (first.number, first.worker, first.epochs_run, first.epochs) == (0, "w1", 1, 4)
    assert first.seconds_left is not None
    assert 200 < first.seconds_left <= 300
    assert (second.number, second.worker, second.seconds_left) == (1, "w2", None)


def test_what_went_wrong_is_there_with_its_traceback_also_where_another_worker_mended_it(
    bench: Bench,
) -> None:
    leases.fail_attempt(bench.engine, bench.start(0, worker="w1"), "hang", "stuck here")
    heir = bench.take("w2")
    assert heir is not None
    leases.record_latency(bench.engine, heir, latency())
    leases.finish_complete(bench.engine, heir, result(), {})
    leases.finish_failed(bench.engine, bench.start(1, worker="w3"), FAILURE)
    failed, hung = reads_live.troubles(bench.engine, bench.study.id)
    assert (failed.number, failed.ended, failed.state, failed.message) == (1, "exception", "failed", "boom")
    assert (failed.worker, failed.traceback) == ("w3", "line 1")
    assert (hung.number, hung.ended, hung.state, hung.message) == (0, "hang", "complete", "")
    assert hung.traceback == "stuck here"
    assert len(reads_live.troubles(bench.engine, bench.study.id, most=1)) == 1


def test_importances_of_more_trials_replace_those_of_fewer(bench: Bench) -> None:
    engine, study_id = bench.engine, bench.study.id
    assert reads.importances(engine, study_id) == []
    set_importances(engine, study_id, "quality", {"scheme": 0.2, "learning_rate": 0.8}, num_trials=20)
    set_importances(engine, study_id, "latency", {"student": 1.0}, num_trials=20)
    set_importances(engine, study_id, "quality", {"scheme": 1.0}, num_trials=10)
    quality, of_latency = reads.importances(engine, study_id)
    assert (quality.objective, quality.num_trials) == ("quality", 20)
    assert list(quality.importances.items()) == [("learning_rate", 0.8), ("scheme", 0.2)]
    assert of_latency.importances == {"student": 1.0}


def test_what_is_long_is_read_of_one_trial_and_not_of_a_list(bench: Bench) -> None:
    lease = bench.start()
    timed = latency(quantiles_ms=(0.5, 1.0, 2.5))
    leases.record_latency(bench.engine, lease, timed)
    leases.finish_complete(bench.engine, lease, result(confusion=CONFUSION), {})
    studies.set_teacher(bench.engine, bench.study.id, result().scores, timed, CONFUSION)
    row = reads.trial(bench.engine, bench.study.id, 0)
    assert (row.confusion, row.latency) == (CONFUSION, timed)
    (listed,) = reads.trials(bench.engine, bench.study.id)
    assert (listed.confusion, listed.latency) == (None, replace(timed, quantiles_ms=()))
    teacher = reads.study(bench.engine, bench.study.name).teacher
    assert teacher is not None
    assert (teacher.confusion, teacher.latency) == (CONFUSION, timed)


def test_figures_from_before_there_were_quantiles_are_read(bench: Bench) -> None:
    old = latency().to_json()
    del old["quantiles_ms"]
    assert Latency.from_json(old) == latency()
    studies.set_teacher(bench.engine, bench.study.id, result().scores, latency())
    teacher = reads.study(bench.engine, bench.study.name).teacher
    assert teacher is not None
    assert teacher.confusion is None
