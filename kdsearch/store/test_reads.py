"""Readings of a study's test pool: one per exported trial, ever, so that nobody chooses by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, text

from kdsearch.store.transactions import begin, repeatable

_FIND = text("SELECT metrics FROM kdsearch.test_read WHERE study_id = :study_id AND number = :number")
_COUNT = text("SELECT count(*) FROM kdsearch.test_read WHERE study_id = :study_id")
_RECORD = text(
    """
    INSERT INTO kdsearch.test_read (study_id, number, metrics)
    VALUES (:study_id, :number, CAST(:metrics AS jsonb))
    ON CONFLICT (study_id, number) DO NOTHING
    """
)


def find(engine: Engine, study_id: int, number: int) -> dict[str, Any] | None:
    """What the test pool said of a trial, if it was ever asked."""
    with begin(engine) as connection:
        found: dict[str, Any] | None = connection.scalar(_FIND, {"study_id": study_id, "number": number})
    return found


@repeatable
def record(engine: Engine, study_id: int, number: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a first reading; whoever comes second gets the first one's figures."""
    key = {"study_id": study_id, "number": number}
    with begin(engine) as connection:
        connection.execute(_RECORD, {**key, "metrics": json.dumps(metrics, allow_nan=False)})
        kept: dict[str, Any] = connection.execute(_FIND, key).scalar_one()
    return kept


def count(engine: Engine, study_id: int) -> int:
    """How many trials of a study have been read on its test pool."""
    with begin(engine) as connection:
        return int(connection.execute(_COUNT, {"study_id": study_id}).scalar_one())
