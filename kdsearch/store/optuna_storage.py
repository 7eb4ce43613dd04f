"""Optuna's storage on the same database: its own tables, through its own API."""

from __future__ import annotations

from contextlib import suppress

from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages._rdb.models import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.core.errors import StorageError
from kdsearch.store.connect import Store, engine_options, parse_url
from kdsearch.store.migrate import one_at_a_time
from kdsearch.store.transactions import explain


def optuna_storage(store: Store) -> BaseStorage:
    """Optuna's cached storage; makes its tables in `public` where they are missing.

    Heartbeats stay off: who runs a trial is a lease of ours.
    """
    url = parse_url(store.url).render_as_string(hide_password=False)
    with one_at_a_time(store.engine):  # its tables are not made safely by several processes at once
        try:
            storage = RDBStorage(url, engine_kwargs=engine_options("kdsearch-optuna"))
        except SQLAlchemyError as error:
            raise explain(error, store.engine) from error
        except RuntimeError as error:
            raise StorageError(
                f"Optuna's tables have another version: {error}", hint="optuna storage upgrade"
            ) from error
    store.closing.callback(storage.engine.dispose)
    return get_storage(storage)


def forget_optuna_study(store: Store, optuna_name: str) -> None:
    """Delete a study of Optuna's; nothing happens if it is not there."""
    storage = optuna_storage(store)
    with suppress(KeyError):
        storage.delete_study(storage.get_study_id_from_name(optuna_name))


def table_names() -> list[str]:
    """Every table that Optuna makes."""
    return [*BaseModel.metadata.tables, "alembic_version"]
