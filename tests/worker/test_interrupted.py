"""Interrupted work: nothing is lost, nothing counts twice, resumed equals uninterrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from kdsearch.core.studyfile import StudyFile
from kdsearch.store import leases, reads, telling
from kdsearch.store.connect import Store, open_store
from kdsearch.worker import tuning as tuning_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


class Countdown:
    """Turns true at the n-th question."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def weights(store: Store, study_id: int) -> list[str]:
    """The files of every trial's artifact: equal weights have equal hashes."""
    rows = reads.trials(store.engine, study_id)
    return [json.loads(store.blobs.open(row.artifact).read_text())["tree"] for row in rows]


def stop_and_go_on(store: Store, name: str, options: WorkerOptions, every: int) -> int:
    """Work in pieces of `every` steps or so; returns how many pieces it took."""
    for pieces in range(1, 200):
        if work(store, name, options=options, should_stop=Countdown(every)) == "done":
            return pieces
    raise AssertionError("the study never ends")


def test_a_study_worked_on_in_pieces_equals_one_in_one_go(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions
) -> None:
    finish(write_study("whole", trials=4, epochs=3))
    record = create_or_resume(store, write_study("pieces", trials=4, epochs=3), on_progress=lambda _: None)
    pieces = stop_and_go_on(store, record.name, options, every=14)
    assert pieces > 4, "the interruptions must have struck in the middle of trials"
    whole = reads.study(store.engine, "whole")
    assert weights(store, record.id) == weights(store, whole.id)
    for ours, theirs in zip(
        reads.trials(store.engine, record.id), reads.trials(store.engine, whole.id), strict=True
    ):
        logits = [np.load(store.blobs.open(t.validation_logits)) for t in (ours, theirs)]
        assert np.array_equal(*logits)


def test_fine_tuning_goes_on_from_the_last_anchor(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study("whole", trials=1)
    finish(file)
    with store.engine.begin() as conn:
        conn.execute(text("DELETE FROM kdsearch.cache_entry WHERE kind = 'teacher'"))
    resumed_from: list[bool] = []
    original = tuning_module.fit

    def watched(*args: object, **kwargs: object) -> object:
        resumed_from.append(kwargs["resume"] is not None)
        return original(*args, **kwargs)

    monkeypatch.setattr(tuning_module, "fit", watched)
    record = create_or_resume(store, write_study("pieces", trials=1), on_progress=lambda _: None)
    stop_and_go_on(store, record.name, options, every=20)
    assert resumed_from[0] is False
    assert resumed_from[-1] is True, "the interruption must have struck after an anchor"
    prepared = [
        json.loads(store.blobs.open(reads.study(store.engine, n).prepared).read_text())
        for n in ("whole", "pieces")
    ]
    assert prepared[0]["teacher"] == prepared[1]["teacher"]
    assert prepared[0]["anchors"] == prepared[1]["anchors"]


def test_a_dead_workers_trial_goes_on_under_its_number(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    record = create_or_resume(store, write_study(trials=2, epochs=3), on_progress=lambda _: None)
    original = leases.record_epoch

    def die_after_recording(*args: object, **kwargs: object) -> None:
        original(*args, **kwargs)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(leases, "record_epoch", die_after_recording)
        with pytest.raises(Died):
            work(store, record.name, options=options, should_stop=lambda: False)
    row = reads.trials(store.engine, record.id)[0]
    assert row.state == "running", "the worker died holding its lease"
    with store.engine.begin() as conn:
        conn.execute(text("UPDATE kdsearch.trial SET expires_at = clock_timestamp() - interval '1 second'"))
    assert work(store, record.name, options=options, should_stop=lambda: False) == "done"
    rows = reads.trials(store.engine, record.id)
    assert [r.state for r in rows] == ["complete", "complete"]
    assert rows[0].attempt == 2
    assert [e.epoch for e in reads.epochs(store.engine, record.id, 0)] == [1, 2, 3]


def test_a_zombie_records_nothing(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_or_resume(store, write_study(trials=1, epochs=3), on_progress=lambda _: None)
    original, stolen = leases.record_epoch, []

    def stolen_meanwhile(engine: object, lease: leases.Lease, *args: object) -> None:
        if not stolen:
            stolen.append(lease.number)
            with store.engine.begin() as conn:
                conn.execute(text("UPDATE kdsearch.trial SET attempt = attempt + 1, worker_id = 'thief'"))
        original(engine, lease, *args)

    monkeypatch.setattr(leases, "record_epoch", stolen_meanwhile)
    stop = Countdown(400)
    assert work(store, record.name, options=options, should_stop=stop) == "stopped"
    row = reads.trial(store.engine, record.id, 0)
    assert (row.state, row.worker) == ("running", "thief")
    assert reads.epochs(store.engine, record.id, 0) == []


def test_what_was_recorded_and_not_told_is_told_by_the_next_worker(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions
) -> None:
    finish(write_study(trials=2))
    with store.engine.begin() as conn:
        conn.execute(text("UPDATE kdsearch.trial SET told = false"))
        conn.execute(text("UPDATE kdsearch.study SET state = 'open'"))
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"
    study = reads.study(store.engine, "tiny")
    assert telling.untold(store.engine, study.id) == []


def test_checkpoints_do_not_pile_up(store: Store, write_study: Write, finish: Finish, tmp_path: Path) -> None:
    finish(write_study(trials=4, epochs=3))
    with store.engine.connect() as conn:
        named = set(conn.execute(text("SELECT checkpoint FROM kdsearch.trial")).scalars())
    assert named, "trials name their checkpoints"
    assert not any(store.blobs.exists(sha256) for sha256 in named if sha256)


def test_a_worker_elsewhere_finds_the_artifacts_by_the_studys_record(
    store: Store, write_study: Write, options: WorkerOptions, tmp_path: Path
) -> None:
    """Only the storage URL is given there; the state folder is another one."""
    record = create_or_resume(store, write_study(trials=1), on_progress=lambda _: None)
    with open_store(store.url, None, home=tmp_path / "elsewhere") as there:
        assert there.artifacts_url != record.artifacts_url
        assert work(there, record.name, options=options, should_stop=lambda: False) == "done"
    artifact = reads.trial(store.engine, record.id, 0).artifact
    assert artifact is not None
    assert store.blobs.exists(artifact)
