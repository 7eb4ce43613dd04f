"""Opening the store: the embedded Postgres or a given one, its tables checked, and the artifacts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from kdsearch.core.errors import StorageError
from kdsearch.store import embedded, migrate
from kdsearch.store.artifacts import ArtifactStore, is_gone, normal_url

DRIVER = "postgresql+psycopg2"
_SESSION = (
    "-c timezone=UTC -c search_path=public -c lock_timeout=15000 -c statement_timeout=60000 "
    "-c idle_in_transaction_session_timeout=60000"
)
"""`search_path`: by default a role named like our schema would find Optuna's tables in there."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """An open store: database and artifacts. Valid inside `open_store`."""

    url: str = field(repr=False)
    """With the password: for child processes by environment, never for messages or arguments."""
    engine: Engine
    artifacts_url: str
    blobs: ArtifactStore
    home: Path
    embedded: bool
    closing: ExitStack = field(repr=False, compare=False)
    """What is to be closed with the store."""
    artifacts_settled: bool = True
    """False where nobody said where artifacts are: then a study's own record does."""

    def of_study(self, artifacts_url: str) -> Store:
        """This store with the artifacts where a study keeps them, unless they were named."""
        if self.artifacts_settled or artifacts_url == self.artifacts_url:
            return self
        if self.embedded and is_gone(artifacts_url):  # the state folder was moved, its artifacts with it
            return self
        blobs = ArtifactStore(artifacts_url, self.home / "cache" / "artifacts", self.engine)
        return replace(self, artifacts_url=artifacts_url, blobs=blobs)


def parse_url(storage: str) -> URL:
    """A Postgres URL with our driver."""
    expected = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise StorageError("The storage URL cannot be read", hint=f"expected {expected}") from None
    if url.get_backend_name() not in ("postgres", "postgresql"):
        raise StorageError(
            f"kdsearch keeps studies in Postgres, not in {url.get_backend_name()!r}",
            hint=f"expected {expected}",
        )
    return url.set(drivername=DRIVER)


_READ_ONLY = " -c default_transaction_read_only=on"


def engine_options(name: str = "kdsearch", *, read_only: bool = False) -> dict[str, object]:
    """How every engine connects, Optuna's too: UTC, dead peers noticed, nothing waits for ever."""
    return {
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_size": 2,
        "max_overflow": 8,
        "connect_args": {
            "connect_timeout": 10,
            "keepalives": 1,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "application_name": name,
            "options": _SESSION + (_READ_ONLY if read_only else ""),
        },
    }


def make_engine(storage: str, *, read_only: bool = False) -> Engine:
    """An engine for a Postgres URL; nothing connects yet. A read-only one refuses every write by mistake."""
    try:
        return create_engine(parse_url(storage), **engine_options(read_only=read_only))
    except NoSuchModuleError:
        raise StorageError("The storage URL names a driver that is not installed") from None


@contextmanager
def open_store(
    storage: str | None, artifacts: str | None, *, home: Path, check_schema: bool = True
) -> Iterator[Store]:
    """The store of a URL, or of the state folder's embedded Postgres if there is none.

    A given database must have the newest tables (unless `check_schema` is off); the embedded one
    gets them. The URL of the embedded server, as child processes have it, counts as a client of it.
    """
    with ExitStack() as closing:
        is_embedded = storage is None or embedded.serves(home, storage)
        if storage is None:
            where = home / "postgres"
            print(f"kdsearch: no --storage given, using the embedded Postgres in {where}", file=sys.stderr)  # noqa: T201
        url = closing.enter_context(embedded.embedded(home)) if is_embedded else str(storage)
        engine = make_engine(url)
        closing.callback(engine.dispose)
        if is_embedded:
            if not migrate.status(engine).is_current:
                migrate.upgrade(engine)
        elif check_schema:
            migrate.require_current(engine)
        where_artifacts = normal_url(artifacts or str(home / "artifacts"))
        yield Store(
            url=url,
            engine=engine,
            artifacts_url=where_artifacts,
            blobs=ArtifactStore(where_artifacts, home / "cache" / "artifacts", engine),
            home=home,
            embedded=is_embedded,
            closing=closing,
            artifacts_settled=artifacts is not None,
        )
