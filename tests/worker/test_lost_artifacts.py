"""What the caches name may be gone, or in another study's artifact store: it is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kdsearch.core.errors import ArtifactError
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.store import cache, leases, preparations, reads
from kdsearch.store.connect import Store, open_store
from kdsearch.worker import prepare as prepare_module
from kdsearch.worker import preparing as preparing_module
from kdsearch.worker import signals as signals_module
from kdsearch.worker import teacher as teacher_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


class Died(BaseException):
    """As SIGKILL would: nothing tidies up."""


def cached(store: Store, kind: str) -> list[str]:
    with store.engine.connect() as conn:
        query = text("SELECT sha256 FROM kdsearch.cache_entry WHERE kind = :kind")
        return list(conn.execute(query, {"kind": kind}).scalars())


def prepared(store: Store, name: str) -> Prepared:
    sha256 = reads.study(store.engine, name).prepared
    assert sha256 is not None
    return Prepared.load(store.blobs, sha256)


def expire_leases(store: Store) -> None:
    with store.engine.begin() as conn:
        for table in ("trial", "preparation"):
            past = "expires_at = clock_timestamp() - interval '1 second'"
            conn.execute(text(f"UPDATE kdsearch.{table} SET {past} WHERE state = 'running'"))


def test_a_cached_teacher_that_is_gone_is_trained_again(
    store: Store, write_study: Write, finish: Finish
) -> None:
    finish(write_study("first", trials=1))
    (tree,) = cached(store, teacher_module.KIND)
    listing: dict[str, str] = json.loads(store.blobs.open(tree).read_text())["tree"]
    store.blobs.remove(listing["model.safetensors"])
    assert finish(write_study("second", trials=1)) == "done"
    assert prepared(store, "second").teacher == tree


def test_cached_signals_that_are_gone_are_computed_again(
    store: Store, write_study: Write, finish: Finish
) -> None:
    finish(write_study("first", trials=1))
    for sha256 in cached(store, signals_module.KIND):
        store.blobs.remove(sha256)
    assert finish(write_study("second", trials=1)) == "done"
    assert prepared(store, "second").pools == prepared(store, "first").pools


def test_a_second_study_may_keep_its_artifacts_elsewhere(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions, tmp_path: Path
) -> None:
    finish(write_study("first", trials=1))
    with open_store(store.url, (tmp_path / "other").as_uri(), home=tmp_path / "home") as elsewhere:
        create_or_resume(elsewhere, write_study("second", trials=1), on_progress=lambda _: None)
        assert work(elsewhere, "second", options=options, should_stop=lambda: False) == "done"


def test_a_death_between_the_teacher_and_its_cache_costs_an_attempt_alone(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_or_resume(store, write_study(trials=1), on_progress=lambda _: None)

    def die(*args: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(teacher_module.cache, "add", die)
        with pytest.raises(Died):
            work(store, "tiny", options=options, should_stop=lambda: False)
    expire_leases(store)
    assert work(store, "tiny", options=options, should_stop=lambda: False) == "done"


@pytest.mark.parametrize("lost", ["its state", "the list of anchors"])
def test_a_fine_tuning_whose_checkpoint_is_gone_starts_afresh(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    record = create_or_resume(store, write_study(trials=1), on_progress=lambda _: None)
    original = preparations.preparation_progress

    def die_after_an_anchor(*args: Any) -> None:
        original(*args)
        if args[3:] and args[3] is not None:
            raise Died

    with monkeypatch.context() as patch:
        patch.setattr(preparing_module.preparations, "preparation_progress", die_after_an_anchor)
        with pytest.raises(Died):
            work(store, record.name, options=options, should_stop=lambda: False)
    unfinished = reads.preparation(store.engine, record.id).checkpoint
    assert unfinished is not None
    step = json.loads(store.blobs.open(unfinished).read_text())
    state = json.loads(store.blobs.open(step["state"]).read_text())
    store.blobs.remove(state["checkpoint"] if lost == "its state" else unfinished)
    expire_leases(store)
    assert work(store, record.name, options=options, should_stop=lambda: False) == "done"
    assert set(prepared(store, record.name).best) == {"loss", "accuracy"}


def test_a_trial_whose_checkpoint_is_gone_starts_afresh(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_or_resume(store, write_study(trials=1), on_progress=lambda _: None)
    original = leases.record_epoch

    def die_after_recording(*args: Any) -> None:
        original(*args)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(leases, "record_epoch", die_after_recording)
        with pytest.raises(Died):
            work(store, record.name, options=options, should_stop=lambda: False)
    with store.engine.connect() as conn:
        checkpoint = conn.execute(text("SELECT checkpoint FROM kdsearch.trial")).scalar_one()
    store.blobs.remove(checkpoint)
    expire_leases(store)
    assert work(store, record.name, options=options, should_stop=lambda: False) == "done"
    assert [e.epoch for e in reads.epochs(store.engine, record.id, 0)] == [1, 2]


def test_an_artifact_store_that_fails_does_not_fail_the_study(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_or_resume(store, write_study(trials=1), on_progress=lambda _: None)

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise ArtifactError("Cannot write artifacts: no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "prepare_teacher", unreachable)
        with pytest.raises(ArtifactError):
            work(store, record.name, options=options, should_stop=lambda: False)
    assert reads.preparation(store.engine, record.id).state == "waiting"
    assert work(store, record.name, options=options, should_stop=lambda: False) == "done"


def test_of_two_figures_for_one_architecture_the_first_counts(
    store: Store, write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers may measure the same architecture, one after the other."""
    original = cache.add
    figures: list[float] = []

    def second_to(engine: Any, kind: str, key: str, sha256: str, meta: Any) -> None:
        if kind == "latency":
            figures.append(meta["p90_ms"] / 2)
            original(engine, kind, key, sha256, {**meta, "p90_ms": figures[-1]})
        original(engine, kind, key, sha256, meta)

    monkeypatch.setattr("kdsearch.worker.measuring.cache.add", second_to)
    finish(write_study(trials=1))
    study = reads.study(store.engine, "tiny")
    assert reads.trial(store.engine, study.id, 0).latency_ms == figures[-1]
