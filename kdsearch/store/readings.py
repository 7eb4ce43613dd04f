"""Readings of the test split: at most one per trial, counted, never used to choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable


def find(engine: Engine, study_id: int, number: int) -> Mapping[str, Any] | None:
    """What a trial reached on the test split, if it was ever read for it."""
    with begin(engine) as connection:
        found: Mapping[str, Any] | None = execute(
            connection, "find_test_read", study_id=study_id, number=number
        ).scalar_one_or_none()
    return found


@repeatable
def record(engine: Engine, study_id: int, number: int, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep a reading and return the one that counts: the first, should there be one already."""
    with begin(engine) as connection:
        execute(connection, "record_test_read", study_id=study_id, number=number, metrics=dict(metrics))
        kept: Mapping[str, Any] = execute(
            connection, "find_test_read", study_id=study_id, number=number
        ).scalar_one()
    return kept


def count(engine: Engine, study_id: int) -> int:
    """For how many trials of a study the test split was read."""
    with begin(engine) as connection:
        return int(execute(connection, "count_test_reads", study_id=study_id).scalar_one())
