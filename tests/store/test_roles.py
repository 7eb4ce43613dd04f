"""Roles on a real Postgres: what each holds, what it can do with it, and what it is refused."""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from roles_bench import Granted, granted_roles, role_of, url_as
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from store_bench import WRITES, Bench

from kdsearch.core.errors import StorageError
from kdsearch.store import columns, migrate, particulars, reads, reads_live, requests, workers
from kdsearch.store.connect import Store, make_engine, open_store
from kdsearch.store.optuna_storage import optuna_storage, table_names
from kdsearch.store.workers import NewWorker

ROWS = {"SELECT", "INSERT", "UPDATE", "DELETE"}
EVERY = (*sorted(ROWS), "TRUNCATE", "REFERENCES", "TRIGGER")
READ_BY_PAGES = {
    "alembic_version_kdsearch", "study", "trial", "epoch", "attempt", "decision", "standing", "preparation",
    "worker", "test_read", "importance", "request", "artifact",
}  # fmt: skip
VERSIONS = {"alembic_version_kdsearch", "alembic_version", "version_info"}
NOT_ALLOWED = "42501"


@pytest.fixture
def as_worker(granted: Granted) -> Iterator[Engine]:
    yield from _engine(granted.worker)


@pytest.fixture
def as_dashboard(granted: Granted) -> Iterator[Engine]:
    yield from _engine(granted.dashboard)


def _engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url)
    yield engine
    engine.dispose()


def held(owner: Engine, role: str) -> dict[str, set[str]]:
    """What a role may do with each table, its own and everybody's privileges together."""
    query = text(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest(:every) p"
        " WHERE n.nspname IN ('kdsearch', 'public') AND c.relkind IN ('r', 'p', 'v')"
        " AND has_table_privilege(:role, c.oid, p)"
    )
    found: dict[str, set[str]] = {}
    with owner.connect() as connection:
        for privilege in EVERY:
            names = connection.execute(query, {"role": role, "every": [privilege]}).scalars()
            for name in names:
                found.setdefault(name, set()).add(privilege)
    return found


def functions(owner: Engine, role: str) -> set[str]:
    query = (
        "SELECT p.proname FROM pg_proc p WHERE p.pronamespace = CAST('kdsearch' AS regnamespace)"
        " AND has_function_privilege(:role, p.oid, 'EXECUTE')"
    )
    with owner.connect() as connection:
        return set(connection.execute(text(query), {"role": role}).scalars())


def refusal(connection: Connection, statement: str) -> str:
    """The SQLSTATE with which Postgres refuses."""
    with pytest.raises(DBAPIError) as refused, connection.begin_nested():
        connection.exec_driver_sql(statement)
    return str(refused.value.orig.pgcode)  # type: ignore[union-attr]


# ---------------------------------------------------------------- what each holds


def test_the_worker_holds_rows_and_nothing_else(granted: Granted) -> None:
    owner, role = granted.owner.engine, role_of(granted.worker)
    ours = set(held(owner, role)) - set(table_names())
    assert ours >= READ_BY_PAGES | {"cache_entry"}
    expected = {name: {"SELECT"} if name in VERSIONS else ROWS for name in (*ours, *table_names())}
    assert held(owner, role) == expected
    assert functions(owner, role) >= {"sweep", "bury", "count_death", "has_expired", "file_request"}


def test_the_dashboard_holds_what_the_pages_read(granted: Granted) -> None:
    owner, role = granted.owner.engine, role_of(granted.dashboard)
    assert held(owner, role) == {name: {"SELECT"} for name in READ_BY_PAGES}
    assert functions(owner, role) == {"file_request"}


def test_neither_is_more_than_a_role_that_logs_in(granted: Granted) -> None:
    query = text(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin,"
        " has_database_privilege(rolname, current_database(), 'CREATE'),"
        " has_database_privilege(rolname, current_database(), 'TEMPORARY'),"
        " has_schema_privilege(rolname, 'kdsearch', 'CREATE'),"
        " has_schema_privilege(rolname, 'public', 'CREATE')"
        " FROM pg_roles WHERE rolname = :name"
    )
    for url in (granted.worker, granted.dashboard):
        with granted.owner.engine.connect() as connection:
            row = connection.execute(query, {"name": role_of(url)}).one()
        assert tuple(row) == (False, False, False, False, False, True, False, False, False, False)


# ---------------------------------------------------------------- what each can do


def test_a_worker_writes_all_that_a_holder_writes(bench: Bench, as_worker: Engine) -> None:
    mine = Bench(as_worker, bench.study)
    for number, write in enumerate(WRITES.values()):
        write(as_worker, mine.start(number, seed=number))


def test_a_worker_waits_on_nobody_else_for_the_rest(bench: Bench, granted: Granted) -> None:
    """It registers, sweeps, repeats, asks and tells Optuna, carries out requests, keeps artifacts."""
    with open_store(granted.worker, granted.owner.artifacts_url, home=granted.owner.home) as store:
        mine, study = Bench(store.engine, bench.study), bench.study
        workers.register(
            store.engine,
            NewWorker(id="w1", study_id=study.id, host="here", pid=1, device="cpu", profile_key=None),
        )
        mine.repeat_of(0)
        mine.expire(0)
        assert mine.sweep() == 1
        theirs = optuna.create_study(
            study_name="by a role", storage=optuna_storage(store), directions=["maximize", "minimize"]
        )
        trial = theirs.ask()
        trial.suggest_float("x", 0, 1)
        theirs.tell(trial, [0.5, 1.0])
        assert theirs.trials[0].values == [0.5, 1.0]
        requests.file(store.engine, study.name, "pause", {})
        asked = requests.take(store.engine, study.id, "w1", 60)
        assert asked is not None
        requests.finish(store.engine, asked, {})
        assert store.blobs.exists(store.blobs.put(b"some bytes"))


def _arguments(function: Any, study: Any) -> dict[str, Any]:
    known = {
        "name": study.name, "study_id": study.id, "number": 0, "latency_name": "p90_ms", "with_epochs": True,
        "digests": ["a" * 64],
    }  # fmt: skip
    required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return {name: known[name] for name in required[1:]}


READING = (reads, reads_live, columns, particulars)
READS: dict[str, Any] = {
    name: found
    for module in READING
    for name, found in vars(module).items()
    if inspect.isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_")
    if next(iter(inspect.signature(found).parameters), "") in ("engine", "where")
}
"""All that lists and pages read, by name."""


def test_the_pages_read_through_no_other_module() -> None:
    pages = Path(__file__).parents[2].joinpath("dashboard").rglob("*.py")
    imports = re.findall("^from kdsearch.store import (.+)$", "\n".join(p.read_text() for p in pages), re.M)
    used = {name for line in imports for name in line.split(", ")}
    assert used - {"migrate", "requests"} <= {module.__name__.rpartition(".")[2] for module in READING}


def test_the_dashboard_reads_everything_that_is_read(bench: Bench, as_dashboard: Engine) -> None:
    bench.complete()
    assert len(READS) > 10
    for read in READS.values():
        read(as_dashboard, **_arguments(read, bench.study))


def test_the_dashboard_opens_files_a_request_and_sees_it(bench: Bench, as_dashboard: Engine) -> None:
    migrate.require_current(as_dashboard)
    filed = requests.file(as_dashboard, bench.study.name, "export", {"trial": 0})
    (row,) = requests.requests(as_dashboard, bench.study.id)
    assert (row.id, row.kind, row.state) == (filed, "export", "waiting")


# ---------------------------------------------------------------- what each is refused

TABLES_OF_ALL = (
    "CREATE TABLE public.mine (x int)",
    "CREATE TABLE kdsearch.mine (x int)",
    "CREATE TEMPORARY TABLE mine (x int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE mine",
    "ALTER TABLE kdsearch.study ADD COLUMN mine int",
    "DROP TABLE kdsearch.epoch",
    "TRUNCATE kdsearch.trial CASCADE",
    "ALTER FUNCTION kdsearch.file_request(text, text, jsonb) SECURITY INVOKER",
    "UPDATE kdsearch.alembic_version_kdsearch SET version_num = '0001'",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY kdsearch.study TO PROGRAM 'cat'",
    "SET session_replication_role = replica",
)
WRITES_OF_THE_DASHBOARD = (
    "INSERT INTO kdsearch.request (study_id, kind, arguments) VALUES (1, 'pause', '{}')",
    "INSERT INTO kdsearch.standing SELECT * FROM kdsearch.standing",
    "UPDATE kdsearch.study SET state = 'done'",
    "UPDATE kdsearch.request SET state = 'waiting'",
    "DELETE FROM kdsearch.trial",
    "SELECT * FROM kdsearch.study FOR UPDATE",
    "SELECT kdsearch.sweep(NULL, 3)",
    "SELECT kdsearch.bury('w1', 'crash', '', 1)",
    "SELECT kdsearch.count_death(1, 'crash', '', 1)",
    "SELECT * FROM kdsearch.cache_entry",
    "DELETE FROM kdsearch.artifact",
    "SELECT * FROM public.studies",
    "INSERT INTO public.studies (study_name) VALUES ('mine')",
    "SELECT nextval('public.studies_study_id_seq')",
)


def test_the_dashboard_is_refused(bench: Bench, as_dashboard: Engine) -> None:
    """By privilege: also in a transaction that says it wants to write."""
    with as_dashboard.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        refused = {s: refusal(connection, s) for s in (*TABLES_OF_ALL, *WRITES_OF_THE_DASHBOARD)}
    assert set(refused.values()) == {NOT_ALLOWED}, refused


def test_the_worker_is_refused(bench: Bench, as_worker: Engine) -> None:
    with as_worker.connect() as connection:
        refused = {statement: refusal(connection, statement) for statement in TABLES_OF_ALL}
    assert set(refused.values()) == {NOT_ALLOWED}, refused


def test_the_dashboards_transactions_only_read(bench: Bench, as_dashboard: Engine) -> None:
    """Even the write that it may do has to be meant."""
    with as_dashboard.connect() as connection:
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"
        filing = "SELECT kdsearch.file_request('spam', 'pause', '{}')"
        assert refusal(connection, filing) == "25006"


def test_a_refusal_says_what_to_do(bench: Bench, as_dashboard: Engine) -> None:
    with pytest.raises(StorageError, match="read-only") as refused:
        requests.take(as_dashboard, bench.study.id, "w1", 60)
    assert "as a worker's role" in refused.value.hint


def test_where_the_owner_made_no_tables_of_optuna_a_worker_says_so(
    database: str, granted: Granted, store: Store
) -> None:
    with store.engine.begin() as connection:
        for name in table_names():
            connection.exec_driver_sql(f"DROP TABLE public.{name} CASCADE")
    with open_store(granted.worker, None, home=store.home) as opened:
        with pytest.raises(StorageError, match="permission denied") as refused:
            optuna_storage(opened)
        assert "db upgrade --roles" in refused.value.hint


# ---------------------------------------------------------------- again, and later


def _granted_here(owner: Engine) -> list[tuple[Any, ...]]:
    """Every privilege and setting of this database, as Postgres keeps them."""
    query = """
        SELECT 'class', oid::text, relacl::text FROM pg_class WHERE relacl IS NOT NULL
        UNION ALL SELECT 'proc', oid::text, proacl::text FROM pg_proc WHERE proacl IS NOT NULL
        UNION ALL SELECT 'schema', nspname::text, nspacl::text FROM pg_namespace
        UNION ALL SELECT 'database', datname::text, datacl::text FROM pg_database
            WHERE datname = current_database()
        UNION ALL SELECT 'default', defaclnamespace || defaclobjtype::text, defaclacl::text
            FROM pg_default_acl
        UNION ALL SELECT 'setting', setrole::text, setconfig::text FROM pg_db_role_setting
        ORDER BY 1, 2, 3"""
    with owner.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_granting_again_changes_nothing(granted: Granted) -> None:
    before = _granted_here(granted.owner.engine)
    granted.again(worker="of-worker", dashboard="of-dashboard")
    assert _granted_here(granted.owner.engine) == before


def test_what_is_no_longer_granted_is_taken_back(granted: Granted) -> None:
    owner, role = granted.owner.engine, role_of(granted.dashboard)
    with owner.begin() as connection:
        for statement in (
            f"GRANT DELETE, TRUNCATE ON kdsearch.study TO {role}",
            f"GRANT SELECT ON public.studies, kdsearch.cache_entry TO {role}",
            f"GRANT CREATE ON SCHEMA kdsearch, public TO {role}",
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA kdsearch TO {role}",
        ):
            connection.exec_driver_sql(statement)
    granted.again()
    assert held(owner, role) == {name: {"SELECT"} for name in READ_BY_PAGES}
    assert functions(owner, role) == {"file_request"}


def test_a_later_migration_is_granted_by_itself(
    granted: Granted, as_worker: Engine, as_dashboard: Engine
) -> None:
    with granted.owner.engine.begin() as connection:
        for statement in (
            "CREATE TABLE kdsearch.later (id bigint GENERATED ALWAYS AS IDENTITY, x int)",
            "CREATE FUNCTION kdsearch.later() RETURNS bigint LANGUAGE sql"
            " AS 'SELECT count(*) FROM kdsearch.later'",
            "CREATE TABLE public.optunas_later (id serial, x int)",
        ):
            connection.exec_driver_sql(statement)
    with as_worker.begin() as connection:
        connection.exec_driver_sql("INSERT INTO kdsearch.later (x) VALUES (1)")
        connection.exec_driver_sql("INSERT INTO public.optunas_later (x) VALUES (1)")
        assert connection.exec_driver_sql("SELECT kdsearch.later()").scalar_one() == 1
    with as_dashboard.connect() as connection:
        assert connection.exec_driver_sql("SELECT x FROM kdsearch.later").scalar_one() == 1
        assert refusal(connection, "SELECT kdsearch.later()") == NOT_ALLOWED
        assert refusal(connection, "SELECT * FROM public.optunas_later") == NOT_ALLOWED


def test_an_owner_without_superpowers_grants_the_same(postgres_url: str, store: Store) -> None:
    """Such as a cloud's Postgres gives: it may make roles, and owns its database."""
    mark = uuid.uuid4().hex[:12]
    admin = create_engine(make_url(postgres_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE ROLE owner_{mark} LOGIN CREATEROLE PASSWORD 'of-owner'"))
        connection.execute(text(f"CREATE DATABASE owned_{mark} OWNER owner_{mark}"))
    url = make_url(url_as(postgres_url, f"owner_{mark}", "of-owner")).set(database=f"owned_{mark}")
    try:
        plain = url.render_as_string(hide_password=False)
        with open_store(plain, None, home=store.home, check_schema=False) as owned:
            migrate.upgrade(owned.engine)
            with granted_roles(owned, cleared_by=make_url(postgres_url)) as granted:
                granted.again(worker="of-worker")
                dashboard = role_of(granted.dashboard)
                assert held(owned.engine, dashboard) == {name: {"SELECT"} for name in READ_BY_PAGES}
                with open_store(granted.worker, None, home=store.home) as opened:
                    optuna_storage(opened)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE owned_{mark} WITH (FORCE)"))
            connection.execute(text(f"DROP ROLE owner_{mark}"))
        admin.dispose()
