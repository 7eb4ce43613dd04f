"""Controls: pausing, stopping, extending, deleting, retrying and training again, and what is in their way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from store_bench import FAILURE, Bench, decision, epoch, latency, new_study, result

from kdsearch.core.errors import ConflictError, LeaseLostError, NotFoundError, UsageError
from kdsearch.store import cache, controls, leases, preparations, reads, requests, studies, workers
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.store.rows import DecisionRow
from kdsearch.store.transactions import begin
from kdsearch.store.workers import NewWorker

NAME = "spam"


def state_of(bench: Bench) -> str:
    return studies.find_study(bench.engine, bench.study.name).state


def set_state(bench: Bench, state: Any, error: str | None = None) -> None:
    with begin(bench.engine) as connection:
        studies.set_state(connection, bench.study.id, state, error=error)


def said(bench: Bench, number: int) -> list[DecisionRow]:
    return reads.decisions(bench.engine, bench.study.id, number)


# ---------------------------------------------------------------- pause and resume


def test_of_a_paused_study_nothing_is_handed_out_and_what_runs_goes_on(bench: Bench) -> None:
    waiting, running = bench.start(0), bench.start(1)
    leases.give_back(bench.engine, waiting)
    assert controls.pause(bench.engine, NAME)
    assert not controls.pause(bench.engine, NAME)
    assert state_of(bench) == "paused"
    assert bench.take() is None
    leases.record_latency(bench.engine, running, latency())
    leases.finish_complete(bench.engine, running, result(), {})
    assert controls.resume(bench.engine, NAME)
    assert not controls.resume(bench.engine, NAME)
    taken = bench.take()
    assert taken is not None
    assert taken.number == 0


def test_what_is_over_is_neither_paused_nor_resumed(bench: Bench) -> None:
    set_state(bench, "done")
    for move in (controls.pause, controls.resume):
        with pytest.raises(ConflictError, match="is done") as raised:
            move(bench.engine, NAME)
        assert "extend spam" in raised.value.hint
    set_state(bench, "failed", error="no teacher")
    with pytest.raises(ConflictError, match="no teacher"):
        controls.pause(bench.engine, NAME)
    with pytest.raises(NotFoundError, match="spa"):
        controls.pause(bench.engine, "spa")


# ---------------------------------------------------------------- stop and extend


def test_a_stopped_study_is_done_and_nothing_of_it_is_open(bench: Bench) -> None:
    bench.complete(0)
    waiting, running, paused = (bench.start(number, worker=f"w{number}") for number in (1, 2, 3))
    leases.give_back(bench.engine, waiting)
    leases.record_epoch(bench.engine, running, epoch(), "c" * 64)
    leases.pause(bench.engine, paused, decision("pause"))
    assert controls.stop(bench.engine, NAME) == [1, 2, 3]
    row = reads.study(bench.engine, NAME)
    assert (row.state, row.error, row.budget_trials) == ("done", controls.STOPPED, 4)
    assert row.counts == {"complete": 1, "stopped": 3}
    with pytest.raises(LeaseLostError):
        leases.renew(bench.engine, running, 60)
    last = said(bench, 2)[-1].decision
    assert (last.action, last.rule, last.reason, last.epoch) == ("stop", "closed", controls.STOPPED, 1)
    assert reads.attempts(bench.engine, bench.study.id, 2)[-1].ended == "given back"
    assert reads.attempts(bench.engine, bench.study.id, 3)[-1].ended == "paused"
    with pytest.raises(ConflictError, match="done already"):
        controls.stop(bench.engine, NAME)


def test_stopping_takes_the_preparation_from_its_worker(bench: Bench) -> None:
    lease = preparations.take_preparation(bench.engine, bench.study.id, "w1", 60)
    assert lease is not None
    assert controls.stop(bench.engine, NAME) == []
    assert reads.study(bench.engine, NAME).budget_trials == 1
    with pytest.raises(LeaseLostError):
        preparations.renew_preparation(bench.engine, lease, 60)


def test_an_extension_adds_and_opens(bench: Bench) -> None:
    bench.complete(0)
    controls.stop(bench.engine, NAME)
    controls.extend(bench.engine, NAME, trials=5, hours=0.5)
    row = reads.study(bench.engine, NAME)
    assert (row.state, row.error) == ("open", None)
    assert (row.budget_trials, row.budget_hours, row.budget_failed) == (6, 2.5, 3)
    controls.pause(bench.engine, NAME)
    controls.extend(bench.engine, NAME, failed=2)
    row = reads.study(bench.engine, NAME)
    assert (row.state, row.budget_failed) == ("paused", 5)


@pytest.mark.parametrize("more", [{}, {"trials": 0}, {"trials": 3, "hours": -1.0}])
def test_less_than_nothing_is_no_extension(bench: Bench, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="adds something"):
        controls.extend(bench.engine, NAME, **more)


def test_what_has_no_limit_is_not_extended(bench: Bench) -> None:
    with pytest.raises(ConflictError, match="no limit of epochs or gpu_hours"):
        controls.extend(bench.engine, NAME, trials=1, epochs=3, gpu_hours=1.0)
    assert reads.study(bench.engine, NAME).budget_trials == 40
    set_state(bench, "failed", error="no teacher")
    with pytest.raises(ConflictError, match="no teacher"):
        controls.extend(bench.engine, NAME, trials=1)


# ---------------------------------------------------------------- trials


def test_a_failed_trial_is_tried_again_under_its_number(bench: Bench) -> None:
    lease = bench.start(0)
    leases.finish_failed(bench.engine, lease, FAILURE)
    set_state(bench, "done")
    controls.retry(bench.engine, NAME, 0)
    assert state_of(bench) == "open"
    again = bench.take("w1")
    assert again is not None
    assert (again.number, again.attempt) == (0, 2)
    with pytest.raises(LeaseLostError):
        leases.finish_failed(bench.engine, lease, FAILURE)
    leases.record_latency(bench.engine, again, latency())
    leases.finish_complete(bench.engine, again, result(), {})
    row = reads.trial(bench.engine, bench.study.id, 0)
    assert (row.state, row.failure) == ("complete", None)


def test_what_took_its_workers_with_it_has_all_its_attempts_again(bench: Bench) -> None:
    bench.start(0, ttl_s=-1)
    for worker in ("w2", "w3"):
        bench.sweep()
        lease = bench.take(worker, ttl_s=-1)
        assert lease is not None
        leases.record_checkpoint(bench.engine, lease, "c" * 64, epochs_run=1)
    bench.sweep()
    assert bench.column("state") == "failed"
    controls.retry(bench.engine, NAME, 0)
    heir = bench.take("w4")
    assert heir is not None
    assert (heir.checkpoint, bench.column("deaths")) == ("c" * 64, 0)
    with pytest.raises(LeaseLostError):  # it might have delivered, as long as nobody asked for another try
        leases.renew(bench.engine, lease, 60)


def test_only_a_failure_is_tried_again(bench: Bench) -> None:
    bench.complete(0)
    with pytest.raises(ConflictError, match="trial 0 of study 'spam' is complete"):
        controls.retry(bench.engine, NAME, 0)
    with pytest.raises(NotFoundError, match="no trial 7"):
        controls.retry(bench.engine, NAME, 7)


def test_further_seeds_are_trained_once_each(bench: Bench) -> None:
    bench.complete(0)
    set_state(bench, "done")
    assert controls.rerun(bench.engine, NAME, 0, [17, 1, 2, 1]) == 2  # 17 is the trial's own
    assert state_of(bench) == "open"
    assert [(row.repeat, row.seed, row.state) for row in reads.repeats(bench.engine, bench.study.id)] == [
        (1, 1, "waiting"),
        (2, 2, "waiting"),
    ]
    assert controls.rerun(bench.engine, NAME, 0, [1, 2]) == 0


def test_a_seed_that_was_stopped_is_trained_again(bench: Bench) -> None:
    bench.repeat_of(0, seed=1)
    assert controls.stop(bench.engine, NAME) == []
    assert reads.repeats(bench.engine, bench.study.id)[0].state == "stopped"
    assert controls.rerun(bench.engine, NAME, 0, [1]) == 1
    lease = bench.take("w2")
    assert lease is not None
    assert (lease.repeat, lease.config.seed) == (1, 1)


def test_only_what_is_complete_is_trained_again(bench: Bench) -> None:
    bench.start(0)
    with pytest.raises(ConflictError, match="is running"):
        controls.rerun(bench.engine, NAME, 0, [1])
    with pytest.raises(UsageError, match="at least one seed"):
        controls.rerun(bench.engine, NAME, 0, [])
    with pytest.raises(NotFoundError, match="no trial 7"):
        controls.rerun(bench.engine, NAME, 7, [1])


# ---------------------------------------------------------------- workers


def test_a_worker_hears_that_it_is_to_leave(bench: Bench) -> None:
    workers.register(
        bench.engine, NewWorker(id="host-1", study_id=bench.study.id, host="host", pid=1, device="cpu")
    )
    assert not workers.seen(bench.engine, "host-1")
    controls.drain(bench.engine, "host-1")
    assert workers.seen(bench.engine, "host-1")
    assert [row.draining for row in reads.workers(bench.engine, bench.study.id)] == [True]
    workers.retire(bench.engine, "host-1")
    with pytest.raises(ConflictError, match="has left already"):
        controls.drain(bench.engine, "host-1")
    with pytest.raises(NotFoundError, match="no worker 'host-2'"):
        controls.drain(bench.engine, "host-2")


# ---------------------------------------------------------------- deleting


def put_list(store: Store, *digests: str) -> str:
    """An artifact that names others, as trees and manifests do."""
    return store.blobs.put(
        json.dumps({"tree": {str(i): digest for i, digest in enumerate(digests)}}).encode()
    )


class Shelves:
    """Two studies that share some artifacts, and a cache."""

    def __init__(self, store: Store) -> None:
        self.store = store
        texts, self.weights, self.logits, self.zip = (
            store.blobs.put(name.encode()) for name in ("texts", "weights", "logits", "zip")
        )
        self.texts, self.kept = texts, store.blobs.put(b"{cached, and used by no study}")
        self.shared, self.own = put_list(store, texts), put_list(store, texts, self.weights)
        cache.add(store.engine, "signals", "theirs", self.kept, {})
        cache.add(store.engine, "signals", "mine", self.logits, {})
        optuna_storage(store).create_new_study([1], "spam")  # type: ignore[list-item]
        self.bench = Bench(store.engine, studies.create_study(store.engine, new_study(**self._files)))
        studies.create_study(store.engine, new_study("other", **self._files))
        lease = self.bench.start()
        leases.record_latency(store.engine, lease, latency())
        done = result(artifact=self.own, validation_logits=self.logits)
        leases.finish_complete(store.engine, lease, done, {})
        requests.file(store.engine, NAME, "export", {"trial": 0})
        asked = requests.take(store.engine, self.bench.study.id, "w1", 60)
        assert asked is not None
        requests.finish(store.engine, asked, {"artifact": self.zip})

    @property
    def _files(self) -> dict[str, str]:
        return {"dataset_sha256": self.shared, "artifacts_url": self.store.artifacts_url}

    def left(self) -> set[str]:
        names = ("texts", "weights", "logits", "zip", "kept", "shared", "own")
        return {name for name in names if self.store.blobs.exists(getattr(self, name))}


def test_a_study_goes_with_what_is_its_own_alone(store: Store) -> None:
    shelves = Shelves(store)
    bytes_of = {name: store.blobs.open(getattr(shelves, name)).stat().st_size for name in shelves.left()}
    gone = {"weights", "logits", "zip", "own"}
    assert controls.delete(store, NAME, artifacts=True) == sum(bytes_of[name] for name in gone)
    assert shelves.left() == {"texts", "kept", "shared"}
    assert [row.name for row in reads.studies(store.engine)] == ["other"]
    assert optuna_storage(store).get_all_studies() == []
    assert cache.find(store.engine, "signals", "mine") == []
    assert len(cache.find(store.engine, "signals", "theirs")) == 1
    with store.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM kdsearch.trial")).scalar_one() == 0
    controls.delete(store, "other", artifacts=True)
    assert shelves.left() == {"kept"}


def test_artifacts_stay_unless_they_are_to_go(store: Store) -> None:
    shelves = Shelves(store)
    before = shelves.left()
    assert controls.delete(store, NAME, artifacts=False) == 0
    assert shelves.left() == before
    with pytest.raises(NotFoundError):
        controls.delete(store, NAME, artifacts=False)


def test_what_is_damaged_is_deleted_all_the_same(store: Store) -> None:
    shelves = Shelves(store)
    path = store.blobs.open(shelves.own)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    controls.delete(store, NAME, artifacts=True)
    assert shelves.left() == {"texts", "kept", "shared", "weights"}  # what it named is known no more
