"""What trials leave behind: checkpoints of those that were stopped or have failed, which nobody needs."""

from __future__ import annotations

from sqlalchemy import Engine

from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable


@repeatable
def left_checkpoints(engine: Engine, study_id: int) -> list[str]:
    """SHA-256 of each that is on record."""
    with begin(engine) as connection:
        return list(execute(connection, "left_checkpoints", study_id=study_id).scalars())


@repeatable
def forget_checkpoints(engine: Engine, study_id: int) -> None:
    """They are removed."""
    with begin(engine) as connection:
        execute(connection, "forget_checkpoints", study_id=study_id)
