"""Fixtures of the store's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for store_bench: test folders are no packages

from store_bench import Bench, new_study

from kdsearch.store import studies
from kdsearch.store.connect import Store


@pytest.fixture
def bench(store: Store) -> Bench:
    """A fresh study named spam."""
    return Bench(store.engine, studies.create_study(store.engine, new_study()))
