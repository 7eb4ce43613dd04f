"""Tables of kdsearch: which version a database has, and bringing it to the newest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.schema import CreateSchema

from kdsearch.core.errors import StorageError
from kdsearch.store.schema import MIGRATION_LOCK, SCHEMA, VERSION_TABLE
from kdsearch.store.transactions import begin


@dataclass(frozen=True)
class SchemaStatus:
    """The tables' version in the database (None: no tables yet) and the one this kdsearch needs."""

    current: str | None
    head: str

    @property
    def is_current(self) -> bool:
        """Whether nothing has to be done."""
        return self.current == self.head


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _current(connection: Connection) -> str | None:
    options = {"version_table": VERSION_TABLE, "version_table_schema": SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise StorageError("This installation of kdsearch has no migrations", hint="install kdsearch again")
    return head


def status(engine: Engine) -> SchemaStatus:
    """Versions of the tables there and of the tables needed; changes nothing."""
    with begin(engine) as connection:
        return SchemaStatus(_current(connection), _head())


@contextmanager
def one_at_a_time(engine: Engine) -> Iterator[Connection]:
    """A transaction in which no other process changes tables, ours or Optuna's."""
    with begin(engine) as connection:
        connection.execute(text("SET LOCAL lock_timeout = '300s'"))
        connection.execute(text("SET LOCAL statement_timeout = '300s'"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '300s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        yield connection


def upgrade(engine: Engine) -> SchemaStatus:
    """Make the tables, or bring them to the newest version: all of it or nothing."""
    with one_at_a_time(engine) as connection:
        _refuse_newer(connection)
        connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
        command.upgrade(_config(connection), "head")
        return SchemaStatus(_current(connection), _head())


def _refuse_newer(connection: Connection) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    current = _current(connection)
    if current is not None and current not in known:
        raise StorageError(
            f"The database's tables have version {current}, which this kdsearch does not know",
            hint="install the newer kdsearch that made them",
        )


def require_current(engine: Engine) -> None:
    """StorageError unless the database has the tables that this kdsearch needs."""
    found = status(engine)
    if not found.is_current:
        has = f"version {found.current}" if found.current else "no tables of kdsearch"
        raise StorageError(
            f"The database has {has}, this kdsearch needs version {found.head}", hint="kdsearch db upgrade"
        )
