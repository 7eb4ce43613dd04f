"""Alembic's entry: runs the migrations on the connection that `store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from kdsearch.store.schema import SCHEMA, VERSION_TABLE


def run() -> None:
    """Migrate inside the caller's transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
    )
    context.run_migrations()


if __name__ == "env_py":  # the name under which Alembic loads this file; an ordinary import does nothing
    run()
