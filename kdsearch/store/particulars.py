"""What pages about parameters and artifacts read beside `reads`: settings of trials, sizes of artifacts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Engine

from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Scalar
from kdsearch.store.sql import execute
from kdsearch.store.transactions import begin


def params(engine: Engine, study_id: int) -> dict[int, Mapping[str, Scalar]]:
    """Parameters of the complete trials, by number and dotted name."""
    with begin(engine) as connection:
        rows = execute(connection, "list_params", study_id=study_id).all()
    return {row.number: TrialConfig.from_json(row.config).params for row in rows}


def artifact_bytes(engine: Engine, digests: Collection[str]) -> dict[str, int]:
    """Size of each artifact that is on record, by SHA-256."""
    with begin(engine) as connection:
        rows = execute(connection, "artifact_bytes", digests=sorted(digests)).all()
    return {row.sha256: row.bytes for row in rows}
