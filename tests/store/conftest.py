"""Fixtures of the store's tests."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

sys.path.insert(0, str(Path(__file__).parent))  # for the benches: test folders are no packages

from embedded_bench import discard
from roles_bench import Granted, granted_roles
from store_bench import Bench, new_study

from kdsearch.store import embedded, studies
from kdsearch.store.connect import Store, make_engine


@pytest.fixture
def bench(store: Store) -> Bench:
    """A fresh study named spam."""
    return Bench(store.engine, studies.create_study(store.engine, new_study()))


@pytest.fixture
def granted(store: Store) -> Iterator[Granted]:
    """The store's two roles."""
    with granted_roles(store) as made:
        yield made


@pytest.fixture(scope="module")
def _shared(postgres_url: str, template: str) -> Iterator[Engine]:
    """One database for a whole file: each test has a study of its own there."""
    name = f"shared_{uuid.uuid4().hex[:16]}"
    admin = create_engine(make_url(postgres_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        connection.execute(text(f'ALTER DATABASE "{name}" SET kdsearch.outage_grace_s = 0'))
    engine = make_engine(make_url(postgres_url).set(database=name).render_as_string(hide_password=False))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture
def crowded(_shared: Engine) -> Bench:
    """A fresh study beside those of other tests."""
    return Bench(_shared, studies.create_study(_shared, new_study(f"study-{uuid.uuid4().hex[:8]}")))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose server is gone after the test."""
    yield tmp_path / "home"
    discard(tmp_path / "home")


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder with a database that was used and is stopped; tests leave it stopped."""
    folder = tmp_path_factory.mktemp("used") / "home"
    with embedded.embedded(folder):
        pass
    yield folder
    discard(folder)
