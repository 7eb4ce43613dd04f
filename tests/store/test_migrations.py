"""Tables: made once, by many at once, before or after Optuna's, whatever the role is called."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from alembic import command
from sqlalchemy import Engine, make_url, text

from kdsearch.core.errors import StorageError
from kdsearch.store import migrate
from kdsearch.store.connect import make_engine, open_store
from kdsearch.store.optuna_storage import optuna_storage


@pytest.fixture
def engine(empty_database: str) -> Iterator[Engine]:
    made = make_engine(empty_database)
    yield made
    made.dispose()


def tables(engine: Engine, schema: str) -> set[str]:
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = :schema")
    with engine.connect() as connection:
        return set(connection.execute(query, {"schema": schema}).scalars())


def use_optuna(url: str, home: Path) -> None:
    with open_store(url, None, home=home, check_schema=False) as store:
        study = optuna.create_study(storage=optuna_storage(store), directions=["maximize", "minimize"])
        study.tell(study.ask(), [0.5, 1.0])
        assert len(study.trials) == 1


def test_an_empty_database_is_refused_and_upgrading_it_helps(
    empty_database: str, engine: Engine, tmp_path: Path
) -> None:
    assert migrate.status(engine).current is None
    with (
        pytest.raises(StorageError, match="no tables of kdsearch") as caught,
        open_store(empty_database, None, home=tmp_path),
    ):
        pass
    assert caught.value.hint == "kdsearch db upgrade"
    done = migrate.upgrade(engine)
    assert done.is_current
    assert migrate.upgrade(engine) == done == migrate.status(engine)
    with open_store(empty_database, None, home=tmp_path) as store:
        assert not store.embedded


def test_reading_the_status_changes_nothing(engine: Engine) -> None:
    migrate.status(engine)
    assert tables(engine, "kdsearch") == set()


@pytest.mark.parametrize("ours_first", [True, False])
def test_both_orders_with_optunas_tables(
    ours_first: bool, empty_database: str, engine: Engine, tmp_path: Path
) -> None:
    if ours_first:
        migrate.upgrade(engine)
    use_optuna(empty_database, tmp_path)
    migrate.upgrade(engine)
    use_optuna(empty_database, tmp_path)
    assert {"study", "trial", "epoch", "alembic_version_kdsearch"} <= tables(engine, "kdsearch")
    assert {"studies", "trials", "alembic_version"} <= tables(engine, "public")
    assert not {"study", "lease"} & tables(engine, "public")
    assert "alembic_version" not in tables(engine, "kdsearch")


def test_a_role_named_like_our_schema_does_not_swallow_optunas_tables(
    postgres_url: str, empty_database: str, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        if connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = 'kdsearch'")).scalar() is None:
            connection.execute(text("CREATE ROLE kdsearch LOGIN SUPERUSER PASSWORD 'x'"))
    url = make_url(empty_database).set(username="kdsearch", password="x")
    named = make_engine(url.render_as_string(hide_password=False))
    migrate.upgrade(named)
    named.dispose()
    use_optuna(url.render_as_string(hide_password=False), tmp_path)
    assert "studies" in tables(engine, "public")
    assert "studies" not in tables(engine, "kdsearch")


def test_many_upgrade_at_once(empty_database: str, tmp_path: Path) -> None:
    def one(number: int) -> migrate.SchemaStatus:
        engine = make_engine(empty_database)
        try:
            done = migrate.upgrade(engine)
            use_optuna(empty_database, tmp_path / str(number))
            return done
        finally:
            engine.dispose()

    with ThreadPoolExecutor(6) as pool:
        assert {done.is_current for done in pool.map(one, range(6))} == {True}


def test_a_newer_database_is_not_touched(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE kdsearch.alembic_version_kdsearch SET version_num = '9999'"))
    with pytest.raises(StorageError, match="9999"):
        migrate.require_current(engine)
    with pytest.raises(StorageError, match="9999") as caught:
        migrate.upgrade(engine)
    assert "newer kdsearch" in caught.value.hint


OLD_STUDY = """
INSERT INTO kdsearch.study (name, optuna_name, spec_text, spec_json, spec_sha256, dataset_sha256,
    data_fingerprint, artifacts_url, budget_trials, budget_failed)
VALUES ('s', 's', '', '{}', '', '', '', '', 1, 0)"""
OLD_TRIAL = """
INSERT INTO kdsearch.trial (study_id, number, optuna_trial_id, config, config_key, architecture_key, student,
    scheme, state, attempt, worker_id)
SELECT id, 0, 1, '{}', '', '', 'bag', 'none', 'waiting', 1, 'w' FROM kdsearch.study"""


def test_trials_from_before_their_origin_was_kept_stay_readable(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA kdsearch"))
        command.upgrade(migrate._config(connection), "0001")
        connection.execute(text(OLD_STUDY))
        connection.execute(text(OLD_TRIAL))
    migrate.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT number, origin FROM kdsearch.trial")).all() == [(0, "")]
