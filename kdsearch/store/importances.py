"""How much each parameter says about an objective: what a worker has worked out, for the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from sqlalchemy import Engine

from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin

Objective: TypeAlias = Literal["quality", "latency"]


def set_importances(
    engine: Engine, study_id: int, objective: Objective, found: Mapping[str, float], *, num_trials: int
) -> None:
    """Keep what was worked out from so many complete trials, unless more of them were looked at before."""
    values = {"objective": objective, "num_trials": num_trials, "importances": dict(found)}
    with begin(engine) as connection:
        execute(connection, "set_importance", study_id=study_id, **values)
