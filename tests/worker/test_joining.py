"""A worker that joins a study of many trials takes what is ready: it reads none of Optuna's trials for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event

from benchmarks import store_load
from kdsearch.store.connect import Store
from kdsearch.worker import claim


@contextmanager
def statements() -> Iterator[list[str]]:
    """Everything that any engine of this process runs: Optuna's is another one."""
    said: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def reads_trials(said: list[str]) -> bool:
    """Optuna loads a study's trials together with their parameters."""
    return any("FROM trial_params" in statement for statement in said)


def test_joining_reads_no_trial_of_optunas(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "MANY", 10)
    store_load.make_study(store, "many", 30)
    store_load.Dummy(store, "many").claims.leave_one_ready()
    with statements() as said:
        joined = store_load.Dummy(store, "many")
        lease = joined.claim()
    assert lease is not None
    assert (lease.number, lease.attempt) == (30, 1)
    assert not reads_trials(said)
    with statements() as said:  # nothing is ready: the next one has to be asked for
        assert joined.claim() is not None
    assert reads_trials(said)
