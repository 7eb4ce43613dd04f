"""Fixtures of the store's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the benches: test folders are no packages

from embedded_bench import discard
from store_bench import Bench, new_study

from kdsearch.store import embedded, studies
from kdsearch.store.connect import Store


@pytest.fixture
def bench(store: Store) -> Bench:
    """A fresh study named spam."""
    return Bench(store.engine, studies.create_study(store.engine, new_study()))


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
