"""`kdsearch db upgrade --roles`: passwords by environment, roles that the other commands can use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url

Run = Callable[..., Any]
SECRETS = {"KDSEARCH_WORKER_PASSWORD": "t0p-secret-w", "KDSEARCH_DASHBOARD_PASSWORD": "t0p-secret-d"}


@dataclass(frozen=True)
class Names:
    """Of roles that are gone after the test."""

    worker: str
    dashboard: str

    @property
    def options(self) -> tuple[str, ...]:
        return ("--roles", "--worker-role", self.worker, "--dashboard-role", self.dashboard)


@pytest.fixture
def names(empty_database: str) -> Iterator[Names]:
    mark = uuid.uuid4().hex[:12]
    yield (made := Names(f"worker_{mark}", f"dashboard_{mark}"))
    engine = create_engine(make_url(empty_database).set(drivername="postgresql+psycopg2"))
    with engine.begin() as connection:
        found = connection.exec_driver_sql(f"SELECT rolname FROM pg_roles WHERE rolname ~ '{mark}'").scalars()
        for name in list(found):
            connection.exec_driver_sql(f"DROP OWNED BY {name}")
            connection.exec_driver_sql(f"DROP ROLE {name}")
    engine.dispose()
    assert made.worker != made.dashboard


def _as(database: str, name: str, password: str) -> str:
    url = make_url(database)
    query = {key: value for key, value in url.query.items() if key != "password"}
    return url.set(username=name, password=password, query=query).render_as_string(hide_password=False)


def test_the_owner_makes_roles_that_commands_can_use(
    kdsearch: Run, empty_database: str, names: Names
) -> None:
    made = kdsearch("db", "upgrade", *names.options, "--json", storage=empty_database, **SECRETS)
    assert made.data("db")["roles"] == {"worker": names.worker, "dashboard": names.dashboard}
    assert "t0p-secret" not in made.out + made.err
    again = kdsearch("db", "upgrade", *names.options, storage=empty_database)  # passwords stay
    assert again.code == 0
    dashboard = _as(empty_database, names.dashboard, "t0p-secret-d")
    assert kdsearch("study", "list", "--json", storage=dashboard).data("studies") == {"studies": []}
    worker = _as(empty_database, names.worker, "t0p-secret-w")
    assert kdsearch("db", "status", "--json", storage=worker).data("db")["fits"] is True


def test_a_role_that_is_not_the_owner_cannot_upgrade(
    kdsearch: Run, empty_database: str, names: Names
) -> None:
    assert kdsearch("db", "upgrade", *names.options, storage=empty_database, **SECRETS).code == 0
    worker = _as(empty_database, names.worker, "t0p-secret-w")
    refused = kdsearch("db", "upgrade", *names.options, "--json", storage=worker).error(5)
    assert "permission denied" in refused["message"] or "must be owner" in refused["message"]
    assert "t0p-secret" not in str(refused)


def test_a_password_that_is_missing_is_named(kdsearch: Run, empty_database: str, names: Names) -> None:
    only = {"KDSEARCH_WORKER_PASSWORD": "t0p-secret-w"}
    refused = kdsearch("db", "upgrade", *names.options, "--json", storage=empty_database, **only).error(2)
    assert "KDSEARCH_DASHBOARD_PASSWORD" in refused["hint"]


def test_names_without_roles_are_a_mistake(kdsearch: Run, empty_database: str) -> None:
    refused = kdsearch("db", "upgrade", "--worker-role", "w", "--json", storage=empty_database).error(2)
    assert refused["hint"] == "add --roles"
