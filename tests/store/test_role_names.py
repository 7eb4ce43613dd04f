"""Names and passwords of roles: never sent, never guessed, never somebody else's."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from roles_bench import Granted, roles_like
from sqlalchemy import event, make_url

from kdsearch.core.errors import ConflictError, UsageError
from kdsearch.store import migrate
from kdsearch.store.connect import Store, make_engine
from kdsearch.store.roles import Role, grant


def test_passwords_are_never_sent(granted: Granted) -> None:
    """What is not sent stands in no log of the server's: it gets a verifier."""
    sent: list[str] = []

    def listen(*said: Any) -> None:
        sent.append(f"{said[2]} {said[3]}")

    event.listen(granted.owner.engine, "before_cursor_execute", listen)
    granted.again(worker="n0t-to-be-seen", dashboard="n0r-this")
    assert any("ALTER ROLE" in statement and "SCRAM-SHA-256$" in statement for statement in sent)
    assert [s for s in sent if "n0t-to-be-seen" in s or "n0r-this" in s] == []
    url = make_url(granted.worker).set(password="n0t-to-be-seen").render_as_string(hide_password=False)
    engine = make_engine(url)
    migrate.require_current(engine)
    engine.dispose()


def test_without_a_password_a_role_keeps_the_one_it_has(granted: Granted) -> None:
    granted.again()
    engine = make_engine(granted.worker)
    migrate.require_current(engine)
    engine.dispose()


def _role(name: str, password: str | None = "secret") -> Role:
    return Role(name=name, password=password, password_from="KDSEARCH_WORKER_PASSWORD")


@pytest.mark.parametrize("name", ["", "public; DROP", 'a"b', "pg_monitor", "Workers", "x" * 64])
def test_a_name_that_is_none(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        grant(store, worker=_role(name), dashboard=_role("kd_dashboard"))


def test_one_role_cannot_be_both(store: Store) -> None:
    with pytest.raises(UsageError, match="of workers and of the dashboard"):
        grant(store, worker=_role("kd_both"), dashboard=_role("kd_both"))


def test_a_new_role_needs_a_password_and_nothing_is_left_without(store: Store) -> None:
    mark = uuid.uuid4().hex[:12]
    with pytest.raises(UsageError, match="no password") as refused:
        grant(store, worker=_role(f"w_{mark}"), dashboard=_role(f"d_{mark}", None))
    assert "KDSEARCH_WORKER_PASSWORD" in refused.value.hint
    assert roles_like(store.engine, mark) == []


@pytest.mark.parametrize("power", ["SUPERUSER", "CREATEROLE", "CREATEDB", "BYPASSRLS", "IN ROLE pg_monitor"])
def test_a_role_with_further_powers_is_left_alone(store: Store, power: str) -> None:
    mark = uuid.uuid4().hex[:12]
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE strong_{mark} {power}")
    try:
        with pytest.raises(ConflictError, match="may do more"):
            grant(store, worker=_role(f"w_{mark}"), dashboard=_role(f"strong_{mark}"))
        assert roles_like(store.engine, mark) == [f"strong_{mark}"]
    finally:
        with store.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE strong_{mark}")


def test_the_owner_is_no_role_for_workers(store: Store) -> None:
    with pytest.raises(ConflictError, match="may do more"):
        grant(store, worker=_role(str(make_url(store.url).username)), dashboard=_role("kd_dashboard"))
