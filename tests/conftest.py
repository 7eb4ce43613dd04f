"""Fixtures for every room: a real Postgres, a fresh database per test, data; in CI nothing is skipped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from kdsearch.store import embedded, migrate
from kdsearch.store.connect import Store, make_engine, open_store

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # read when a test first loads torch or numpy
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Where a test has loaded torch, one thread: the machine is shared."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a skipped test is a failed one, with its reason."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """So is a file that skips itself as a whole."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


def _fail_if_skipped_in_ci(report: Any) -> None:
    if IN_CI and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {reason} (in CI nothing may be skipped)"


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored, and children inherit that: tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "root_only: what only root meets; not collected for others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of what only root meets do not exist for ordinary users."""
    if os.geteuid() != 0:
        apart = [item for item in items if item.get_closest_marker("root_only")]
        items[:] = [item for item in items if item not in apart]
        config.hook.pytest_deselected(items=apart)


def discard(home: Path) -> None:
    """Remove an embedded server of a test, with what root keeps outside the state folder."""
    embedded.stop(home, force=True)
    record = home / "postgres" / "server.json"
    if record.exists():
        place = json.loads(record.read_text())
        shutil.rmtree(place["sockets"], ignore_errors=True)
        if place["account"] is not None:
            shutil.rmtree(Path(place["data"]).parent, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on which databases may be made: KDSEARCH_TEST_POSTGRES, or an embedded one of our own."""
    given = os.environ.get("KDSEARCH_TEST_POSTGRES")
    if given:
        yield given
        return
    home = tmp_path_factory.mktemp("server") / "home"
    with embedded.embedded(home) as url:
        _forget_about_power_cuts(url)
        yield url
    discard(home)


def _forget_about_power_cuts(url: str) -> None:
    """Making and dropping databases need not reach the disk here."""
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {name} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    admin.dispose()


@contextmanager
def made_database(server: str, *, template: str | None = None) -> Iterator[str]:
    """A new database, dropped on leaving; yields its URL."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    admin = create_engine(make_url(server), isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            copied = f' TEMPLATE "{template}"' if template else ""
            connection.execute(text(f'CREATE DATABASE "{name}"{copied}'))
            # No outage to recover from, though the server may have started a moment ago.
            connection.execute(text(f'ALTER DATABASE "{name}" SET kdsearch.outage_grace_s = 0'))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    finally:
        admin.dispose()


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """URL of a fresh database without any tables."""
    with made_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database that tests are copied from."""
    with made_database(postgres_url) as url:
        engine = make_engine(url)
        migrate.upgrade(engine)
        engine.dispose()
        yield str(make_url(url).database)


@pytest.fixture
def database(postgres_url: str, template: str) -> Iterator[str]:
    """URL of a fresh migrated database."""
    with made_database(postgres_url, template=template) as url:
        yield url


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[Store]:
    """An open store: a fresh database, artifacts in a folder of the test."""
    with open_store(database, (tmp_path / "artifacts").as_uri(), home=tmp_path / "home") as opened:
        yield opened


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets (KDSEARCH_DATA)."""
    given = os.environ.get("KDSEARCH_DATA")
    if not given:
        pytest.skip("KDSEARCH_DATA is not set")
    if not Path(given).is_dir():
        pytest.skip(f"KDSEARCH_DATA={given} is not a folder")
    return Path(given).absolute()
