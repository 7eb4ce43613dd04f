"""How sure the front is: written as a whole when a study closes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Engine

from kdsearch.core.records import Standing
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin, repeatable


@repeatable
def set_standings(engine: Engine, study_id: int, standings: Sequence[Standing]) -> None:
    """Put these in the place of all that there were; of those who do so at once the last one counts."""
    rows = [{**asdict(standing), "seeds": list(standing.seeds)} for standing in standings]
    with begin(engine) as connection:
        execute(connection, "standings_turn", study_id=study_id)
        execute(connection, "forget_standings", study_id=study_id)
        for row in rows:
            execute(connection, "insert_standing", study_id=study_id, **row)
