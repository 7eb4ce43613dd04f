"""Opening the store: URLs, schema, sessions; passwords stay out of every message."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, make_url, text

from kdsearch.core.errors import KdsearchError, StorageError
from kdsearch.store import embedded, migrate, studies
from kdsearch.store.connect import Store, make_engine, open_store, parse_url
from kdsearch.store.statefolder import resolve_home
from kdsearch.store.transactions import UnavailableError, begin, repeatable, without_secrets

SECRET = "s3cr3t-p4ss"


def test_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_home({}) == tmp_path / ".kdsearch"
    assert resolve_home({"KDSEARCH_HOME": ""}) == tmp_path / ".kdsearch"
    assert resolve_home({"KDSEARCH_HOME": "elsewhere"}) == tmp_path / "elsewhere"
    assert resolve_home({"KDSEARCH_HOME": "/a/b"}) == Path("/a/b")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_every_way_to_write_a_postgres_url(scheme: str) -> None:
    assert parse_url(f"{scheme}://u:p@h:5433/d").render_as_string(hide_password=False) == (
        "postgresql+psycopg2://u:p@h:5433/d"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/nothing",
        f"postgresql://user:{SECRET}@no-such-host.invalid/nothing",
        f"postgresql://user@127.0.0.1:1/nothing?password={SECRET}",
        f"mysql://user:{SECRET}@h/d",
        "sqlite:///some.db",
        f"user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host:notaport/d",
        f"postgresql://user:{SECRET}@127.0.0.1:1/d?nonsense=1",
    ],
)
def test_a_wrong_url_is_a_storage_error_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught, open_store(url, None, home=tmp_path):
        pass
    assert caught.value.exit_code == 5
    assert caught.value.hint
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert SECRET not in shown


def test_the_password_is_not_in_the_stores_repr(database: str, tmp_path: Path) -> None:
    engine = make_engine(make_url(database).set(password=SECRET).render_as_string(hide_password=False))
    assert SECRET not in repr(engine)
    with open_store(database, None, home=tmp_path) as store:
        assert SECRET not in repr(replace(store, engine=engine, url=f"postgresql://u:{SECRET}@h/d"))
    engine.dispose()


@pytest.mark.parametrize(
    "message",
    [
        f"postgresql://u:{SECRET}@h/d",
        f"postgresql://u:p@ss{SECRET}@h/d",
        f"host=h password={SECRET} user=u",
        f"host=h password='{SECRET}' user=u",
        f"s3://key:{SECRET}@bucket/x",
        f"postgresql://u@h/d?user=a&password={SECRET}&x=1",
    ],
)
def test_blotting_out(message: str) -> None:
    shown = without_secrets(message)
    assert SECRET not in shown
    assert "***" in shown
    assert without_secrets("nothing to hide: a@b, 12:30") == "nothing to hide: a@b, 12:30"


def test_every_session_speaks_utc_and_gives_up_waiting(store: Store) -> None:
    with store.engine.connect() as connection:
        shown = {
            name: connection.execute(text(f"SHOW {name}")).scalar()
            for name in ("timezone", "search_path", "lock_timeout", "idle_in_transaction_session_timeout")
        }
    assert shown == {
        "timezone": "UTC",
        "search_path": "public",
        "lock_timeout": "15s",
        "idle_in_transaction_session_timeout": "1min",
    }


def test_artifacts_default_to_the_state_folder(database: str, tmp_path: Path) -> None:
    with open_store(database, None, home=tmp_path / "a home") as store:
        sha256 = store.blobs.put(b"bytes")
        assert store.blobs.open(sha256).is_relative_to(tmp_path / "a home" / "artifacts")
        assert store.artifacts_url == (tmp_path / "a home" / "artifacts").as_uri()


# ---------------------------------------------------------------- the embedded one


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("connect") / "home"
    yield folder
    with embedded.embedded(folder):
        data = embedded.status(folder).data
    assert data is not None
    if not Path(data).is_relative_to(folder):
        subprocess.run(["rm", "-rf", str(Path(data).parent)], check=True)


def test_without_a_url_the_embedded_one_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(None, None, home=home) as store:
        assert store.embedded
        assert migrate.status(store.engine).is_current
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert str(home) in captured.err
    assert not embedded.status(home).running


def test_a_study_of_the_embedded_server_may_have_its_artifacts_elsewhere(home: Path, tmp_path: Path) -> None:
    recorded = tmp_path / "big disk"
    with open_store(None, str(recorded), home=home) as store:
        sha256 = store.blobs.put(b"weights")
    with open_store(None, None, home=home) as store:
        assert store.of_study(recorded.as_uri()).blobs.open(sha256).read_bytes() == b"weights"
        moved = (tmp_path / "where the state folder was" / "artifacts").as_uri()
        assert store.of_study(moved).artifacts_url == store.artifacts_url


def test_a_folder_named_from_here_is_found_from_anywhere(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a study records as its artifacts' place."""
    monkeypatch.chdir(tmp_path)
    with open_store(database, "kept", home=tmp_path / "home") as store:
        assert store.artifacts_url == (tmp_path / "kept").as_uri()


def test_a_child_with_the_embedded_url_keeps_the_server_alive(home: Path) -> None:
    child = """
import sys
from pathlib import Path
from sqlalchemy import text
from kdsearch.store.connect import open_store
with open_store(sys.argv[2], None, home=Path(sys.argv[1])) as store:
    print(store.embedded, flush=True)
    sys.stdin.read()
    with store.engine.connect() as connection:
        print(connection.execute(text("SELECT 1")).scalar(), flush=True)
"""
    with open_store(None, None, home=home) as store:
        command = [sys.executable, "-c", child, str(home), store.url]
        started = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert started.stdout is not None
        assert started.stdout.readline() == "True\n"
    assert embedded.status(home).running
    rest, _ = started.communicate("")
    assert (rest, started.returncode) == ("1\n", 0)
    assert not embedded.status(home).running


def test_a_wrong_password_is_not_repeated(home: Path, tmp_path: Path) -> None:
    with embedded.embedded(home) as right:
        url = make_url(right).set(password=SECRET).render_as_string(hide_password=False)
        with (
            pytest.raises(StorageError, match="password authentication failed") as caught,
            open_store(url, None, home=tmp_path),
        ):
            pass
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# ---------------------------------------------------------------- outages


def cut_connections(engine: Engine, url: str) -> None:
    """What a restarted server does to everybody: all sessions of a database end."""
    admin = make_engine(make_url(url).set(database="postgres").render_as_string(hide_password=False))
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
    with admin.connect() as connection:
        connection.execute(text(query), {"name": make_url(url).database})
    admin.dispose()


def test_a_cut_connection_in_the_middle_is_a_passing_error(store: Store) -> None:
    with pytest.raises(UnavailableError) as caught, begin(store.engine) as connection:
        connection.execute(text("SELECT 1"))
        cut_connections(store.engine, store.url)
        connection.execute(text("SELECT 1"))
    assert (caught.value.exit_code, caught.value.code) == (5, "storage")


def test_a_repeatable_write_survives_a_cut_connection(store: Store) -> None:
    cuts = [True, True]

    @event.listens_for(store.engine, "begin")
    def cut(connection: object) -> None:
        if cuts:
            cuts.pop()
            cut_connections(store.engine, store.url)

    @repeatable
    def write() -> int:
        with begin(store.engine) as connection:
            return int(connection.execute(text("SELECT 7")).scalar_one())

    assert write() == 7
    assert cuts == []


def test_what_is_no_outage_is_not_repeated(store: Store) -> None:
    tries = []

    @repeatable
    def write() -> None:
        tries.append(1)
        with begin(store.engine) as connection:
            connection.execute(text("SELECT no_such_column"))

    with pytest.raises(StorageError, match="no_such_column"):
        write()
    assert len(tries) == 1


def test_our_own_errors_pass_through_and_roll_back(store: Store) -> None:
    with pytest.raises(KdsearchError, match="mine"), begin(store.engine) as connection:
        connection.execute(text("CREATE TABLE public.gone (id int)"))
        raise KdsearchError("mine")
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT to_regclass('public.gone')")).scalar() is None


def test_reading_a_study_does_not_load_optuna_or_torch() -> None:
    code = (
        "import sys; import kdsearch.store.reads, kdsearch.store.connect, kdsearch.store.migrate;"
        "print([m for m in ('optuna', 'torch', 'transformers') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert (shown.stdout, shown.stderr) == ("[]\n", "")
    assert studies.__doc__
