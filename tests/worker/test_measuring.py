"""Which latency figures studies share, and that the teacher's check, too, leaves measurers alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kdsearch.core.spec import LatencySpec
from kdsearch.core.studyfile import StudyFile
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.profile import hardware_profile
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.teachers import signals
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.measuring import figure_key

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


def test_a_key_names_all_that_a_figure_depends_on() -> None:
    spec = LatencySpec()
    same: dict[str, Any] = {
        "architecture": "a",
        "profile": hardware_profile(spec),
        "texts": ["one", "two"],
        "max_length": 8,
        "tokenizer": "t",
        "protocol": spec,
    }
    changed: dict[str, Any] = {
        "architecture": "b",
        "profile": replace(hardware_profile(spec), threads=2),
        "texts": ["two", "one"],
        "max_length": 9,
        "tokenizer": "u",
    }
    keys = [figure_key(**same), *(figure_key(**{**same, k: v}) for k, v in changed.items())]
    efforts = (LatencySpec(warmup=1), LatencySpec(min_queries=20), LatencySpec(min_seconds=0.5))
    keys += [figure_key(**{**same, "protocol": effort}) for effort in efforts]
    assert len(set(keys)) == len(keys)
    assert figure_key(**same) == keys[0]


def test_a_study_that_asks_for_more_queries_measures_again(
    store: Store, write_study: Write, finish: Finish
) -> None:
    for name, queries in (("short", 10), ("long", 30)):
        finish(write_study(name, trials=2, replace=("min_queries: 10", f"min_queries: {queries}")))
        study = reads.study(store.engine, name)
        assert study.teacher is not None
        figures = [study.teacher.latency, *(t.latency for t in reads.trials(store.engine, study.id))]
        assert [f.num_queries for f in figures if f] == [queries] * 3


def test_nobody_measures_while_the_teachers_signals_are_checked(
    write_study: Write, finish: Finish, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []
    audit = signals.audit

    def watched(*args: Any, **kwargs: Any) -> None:
        with HostLock(options.lock_folder).measuring(0) as alone:
            free.append(alone)
        audit(*args, **kwargs)

    monkeypatch.setattr(signals, "audit", watched)
    finish(write_study(trials=1))
    assert free == [False, False]
