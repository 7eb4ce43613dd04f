"""A whole study by a worker whose role may write rows and make no tables."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from kdsearch.core.studyfile import StudyFile
from kdsearch.store import reads
from kdsearch.store.connect import Store, open_store
from kdsearch.store.roles import Role, grant


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[Store]:
    """Opened as the worker's role."""
    names = {kind: f"{kind}_{uuid.uuid4().hex[:12]}" for kind in ("worker", "dashboard")}
    roles = {kind: Role(name=name, password=kind, password_from="-") for kind, name in names.items()}
    with open_store(database, None, home=tmp_path / "owner") as owner:
        grant(owner, **roles)
        with open_store(_as(database, roles["worker"]), None, home=tmp_path / "home") as opened:
            yield opened
        for name in names.values():
            with owner.engine.begin() as connection:
                connection.exec_driver_sql(f"DROP OWNED BY {name}")
                connection.exec_driver_sql(f"DROP ROLE {name}")


def _as(database: str, role: Role) -> str:
    url = make_url(database)
    query = {key: value for key, value in url.query.items() if key != "password"}
    other = url.set(username=role.name, password=role.password, query=query)
    return other.render_as_string(hide_password=False)


def test_a_study_runs_to_its_end_in_the_workers_role(
    store: Store, write_study: Callable[..., StudyFile], finish: Callable[[StudyFile], str]
) -> None:
    assert str(make_url(store.url).username).startswith("worker_")
    assert finish(write_study(trials=3)) == "done"
    trials = reads.trials(store.engine, reads.study(store.engine, "tiny").id)
    assert [t.state for t in trials] == ["complete"] * 3
