"""Tables: made once, by many at once, before or after Optuna's, whatever the role is called."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from alembic import command
from sqlalchemy import Connection, Engine, make_url, text

from kdsearch.core.errors import StorageError
from kdsearch.store import leases, migrate, studies
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


AT_0002 = """
INSERT INTO kdsearch.trial (study_id, number, optuna_trial_id, config, config_key, architecture_key, student,
    scheme, state, attempt, deaths, worker_id, expires_at, finished_at, result, scores, quality, failure,
    told)
SELECT s.id, v.number, v.number, '{"seed": 17, "epochs": 6}', '', '', 'bag', 'none', v.state, v.attempt,
    v.deaths, 'w', CASE WHEN v.state = 'running' THEN clock_timestamp() END,
    CASE WHEN v.state NOT IN ('waiting', 'running') THEN clock_timestamp() END,
    CASE WHEN v.state = 'complete' THEN CAST('{"epochs_run": 6}' AS jsonb) END,
    CASE WHEN v.state = 'complete' THEN CAST('{}' AS jsonb) END,
    CASE WHEN v.state = 'complete' THEN 0.9 END,
    CASE WHEN v.state = 'failed'
        THEN jsonb_build_object('kind', v.kind, 'message', '', 'traceback', 'tb') END,
    v.state = 'complete'
FROM kdsearch.study s CROSS JOIN (VALUES
    (0, 'complete', 1, 0, NULL), (1, 'running', 2, 1, NULL), (2, 'waiting', 1, 1, NULL),
    (3, 'waiting', 1, 0, NULL), (4, 'failed', 3, 3, 'attempts'), (5, 'failed', 1, 0, 'exception'),
    (6, 'rejected', 1, 0, NULL)
) AS v (number, state, attempt, deaths, kind)"""
EPOCHS_AT_0002 = """
INSERT INTO kdsearch.epoch (study_id, number, epoch, stage, rows_seen, losses, quality, seconds)
SELECT id, 1, e, 'distil', 10 * e, '{}', 0.1 * e, 1 FROM kdsearch.study CROSS JOIN generate_series(1, 3) e"""
TEST_READ_AT_0002 = (
    "INSERT INTO kdsearch.test_read (study_id, number, metrics) SELECT id, 0, '{}' FROM kdsearch.study"
)


def test_a_used_database_keeps_everything_and_goes_on(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA kdsearch"))
        command.upgrade(migrate._config(connection), "0002")
        for statement in (OLD_STUDY, AT_0002, EPOCHS_AT_0002, TEST_READ_AT_0002):
            connection.execute(text(statement))
    with pytest.raises(StorageError, match="version 0002, this kdsearch needs version 0004") as caught:
        migrate.require_current(engine)
    assert caught.value.hint == "kdsearch db upgrade"
    migrate.upgrade(engine)
    migrate.require_current(engine)
    with engine.begin() as connection:
        assert_everything_was_kept(connection)
        assert_it_goes_on(connection)


def assert_everything_was_kept(connection: Connection) -> None:
    rows = connection.execute(
        text("SELECT number, repeat, epochs_run, accumulate, told FROM kdsearch.trial ORDER BY 1")
    ).all()
    assert [row[:4] for row in rows] == [(n, 0, {0: 6, 1: 3}.get(n, 0), 1) for n in range(7)]
    assert [row.number for row in rows if row.told] == [0]
    epochs = connection.execute(
        text("SELECT number, repeat, epoch, quality FROM kdsearch.epoch ORDER BY 3")
    ).all()
    assert [row[:3] for row in epochs] == [(1, 0, e) for e in (1, 2, 3)]
    assert connection.execute(text("SELECT count(*) FROM kdsearch.test_read")).scalar() == 1
    attempts = connection.execute(
        text("SELECT number, attempt, ended FROM kdsearch.attempt ORDER BY 1")
    ).all()
    assert attempts == [
        (0, 1, "finished"),
        (1, 2, None),
        (2, 1, "lost"),
        (3, 1, "given back"),
        (4, 3, "lost"),
        (5, 1, "exception"),
        (6, 1, "finished"),
    ]


def assert_it_goes_on(connection: Connection) -> None:
    study_id = connection.execute(text("SELECT id FROM kdsearch.study")).scalar_one()
    connection.execute(text("SET LOCAL kdsearch.outage_grace_s = 0"))
    assert leases.sweep(connection, study_id) == 1
    taken = connection.execute(
        text("SELECT number, state, deaths FROM kdsearch.trial WHERE number = 1")
    ).one()
    assert taken == (1, "waiting", 2)
    assert studies.budget_state(connection, study_id).epochs_reserved == 6 + 6 + 6 + 6
