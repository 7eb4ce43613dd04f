"""The two roles of a store, under names of their own, since roles belong to the whole server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import URL, Engine, create_engine, make_url, text

from kdsearch.store.connect import Store
from kdsearch.store.roles import Role, grant


@dataclass(frozen=True)
class Granted:
    """A store opened by its owner, and the same database as each role meets it: URLs."""

    owner: Store
    worker: str
    dashboard: str

    def again(self, *, worker: str | None = None, dashboard: str | None = None) -> None:
        """Grant once more, with these passwords or without."""
        grant(
            self.owner,
            worker=Role(name=role_of(self.worker), password=worker, password_from="WORKERS"),
            dashboard=Role(name=role_of(self.dashboard), password=dashboard, password_from="DASHBOARDS"),
        )


def role_of(url: str) -> str:
    return str(make_url(url).username)


def url_as(url: str, name: str, password: str) -> str:
    """The same database for another role."""
    found = make_url(url)
    query = {key: value for key, value in found.query.items() if key != "password"}
    return found.set(username=name, password=password, query=query).render_as_string(hide_password=False)


@contextmanager
def granted_roles(owner: Store, *, cleared_by: URL | None = None) -> Iterator[Granted]:
    """The roles, until leaving; an owner without superpowers may make them and not clear them away."""
    mark = uuid.uuid4().hex[:12]
    urls = [url_as(owner.url, f"{name}_{mark}", f"of-{name}") for name in ("worker", "dashboard")]
    made = Granted(owner, *urls)
    try:
        made.again(worker="of-worker", dashboard="of-dashboard")
        yield made
    finally:
        url = (
            make_url(owner.url) if cleared_by is None else cleared_by.set(database=owner.engine.url.database)
        )
        forget(url, mark)


def roles_like(engine: Engine, mark: str) -> list[str]:
    with engine.connect() as connection:
        query = text("SELECT rolname FROM pg_roles WHERE rolname LIKE :like ORDER BY 1")
        return list(connection.execute(query, {"like": f"%{mark}"}).scalars())


def forget(url: URL, mark: str) -> None:
    engine = create_engine(url.set(drivername="postgresql+psycopg2"))
    for role in roles_like(engine, mark):
        with engine.begin() as connection:
            connection.exec_driver_sql(f'DROP OWNED BY "{role}"')
            connection.exec_driver_sql(f'DROP ROLE "{role}"')
    engine.dispose()
