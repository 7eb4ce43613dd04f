"""A worker whose machine is not the study's measuring profile: it trains, it never measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sqlalchemy import text

from kdsearch.core.errors import UsageError
from kdsearch.core.records import HardwareProfile
from kdsearch.core.spec import LatencySpec
from kdsearch.core.studyfile import StudyFile
from kdsearch.measure.profile import hardware_profile
from kdsearch.store import reads, telling
from kdsearch.store.connect import Store
from kdsearch.worker import measuring
from kdsearch.worker import trial as trial_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


def elsewhere(patch: pytest.MonkeyPatch) -> None:
    """From now on this machine has another processor, and must not be timed."""

    def another(spec: LatencySpec) -> HardwareProfile:
        return replace(hardware_profile(spec), device_model="another processor")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("measured on hardware that the study's figures are not of")

    patch.setattr(measuring, "hardware_profile", another)
    patch.setattr(measuring, "measure_latency", never)


def prepare_only(store: Store, file: StudyFile, options: WorkerOptions) -> int:
    """The study's profile becomes that of this machine; no trial is begun."""
    record = create_or_resume(store, file, on_progress=lambda _: None)
    prepared = lambda: reads.study(store.engine, record.name).prepared is not None  # noqa: E731
    assert work(store, record.name, options=options, should_stop=prepared) == "stopped"
    assert reads.trials(store.engine, record.id) == []
    return record.id


def test_an_unmeasured_architecture_waits_for_the_studys_profile(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(trials=3)
    study_id = prepare_only(store, file, options)
    with monkeypatch.context() as patch:
        elsewhere(patch)
        asked = iter([False] * 12)
        assert work(store, "tiny", options=options, should_stop=lambda: next(asked, True)) == "stopped"
    (row,) = reads.trials(store.engine, study_id)
    assert (row.state, row.latency) == ("waiting", None)
    assert finish(file) == "done"
    assert [t.state for t in reads.trials(store.engine, study_id)] == ["complete"] * 3


def test_what_was_measured_is_trained_anywhere(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(write_study("first", trials=2))
    study_id = prepare_only(store, write_study("second", trials=4), options)
    elsewhere(monkeypatch)
    assert work(store, "second", options=options, should_stop=lambda: False) == "done"
    rows = reads.trials(store.engine, study_id)
    assert [t.state for t in rows] == ["complete"] * 4
    here = hardware_profile(LatencySpec(warmup=2, min_queries=10, min_seconds=0))
    assert {t.latency.profile for t in rows if t.latency} == {here}


def test_when_the_hours_are_spent_nobody_waits_for_the_studys_profile(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(trials=3, replace=("failed: 3}", "failed: 3, hours: 1}"))
    study_id = prepare_only(store, file, options)
    elsewhere(monkeypatch)
    asked = iter([False] * 6)
    assert work(store, "tiny", options=options, should_stop=lambda: next(asked, True)) == "stopped"
    with store.engine.begin() as conn:
        conn.execute(text("UPDATE kdsearch.study SET active_seconds = 3600"))
    asked = iter([False] * 12)
    assert work(store, "tiny", options=options, should_stop=lambda: next(asked, True)) == "done"
    (row,) = reads.trials(store.engine, study_id)
    assert row.state == "stopped"
    assert telling.untold(store.engine, study_id) == []


def test_a_study_that_measures_on_a_gpu_is_not_prepared_without_one(
    store: Store, write_study: Write, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = write_study(replace=("latency: {", "latency: {device: cuda, runtime: torch, "))
    record = create_or_resume(store, file, on_progress=lambda _: None)
    with pytest.raises(UsageError, match="no GPU"):
        work(store, "tiny", options=options, should_stop=lambda: False)
    assert reads.preparation(store.engine, record.id).state == "waiting"
    assert reads.study(store.engine, "tiny").state == "open"


def test_a_broken_device_costs_one_trial_and_the_worker(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After such an error every step on the device fails: the worker would burn up the budget."""
    file = write_study(trials=3, failed=1)
    study_id = prepare_only(store, file, options)

    def broken(*args: object, **kwargs: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "fit", broken)
        with pytest.raises(torch.AcceleratorError):
            work(store, "tiny", options=options, should_stop=lambda: False)
    assert [t.state for t in reads.trials(store.engine, study_id)] == ["failed"]
    assert finish(file) == "done"
