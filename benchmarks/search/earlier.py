"""A table as the journals that it came from: what was trained elsewhere is not trained again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.assemble import COLUMNS, TEACHER
from benchmarks.search.design import seeded
from benchmarks.search.ground import Ground
from benchmarks.search.table import Architecture, Table, Teacher, load
from kdsearch.core.errors import ConflictError

EARLIER = ""
"""When its latencies were taken: before any that a journal has."""
SAME = 1e-4
"""Tables are rounded."""
WANTED = ("p50_ms", "p90_ms", "size_mb", "num_params", "noisy")


def earlier(ground: Ground, folder: Path) -> Table | None:
    """The table of a data set, if there is one; ConflictError if it was trained from another teacher."""
    path = folder / f"{ground.data}.json.gz"
    if not path.exists():
        return None
    table, here = load(path), ground.teacher()
    if not np.allclose([table.teacher.quality, table.teacher.nll], [here.quality, here.nll], atol=SAME):
        raise ConflictError(
            f"{path} was trained from a teacher of {table.teacher.quality:.4f} "
            f"(NLL {table.teacher.nll:.4f}); the one prepared here has {here.quality:.4f} ({here.nll:.4f})",
            hint="start another table with --out FOLDER",
        )
    return table


def runs(table: Table) -> Iterator[dict[str, Any]]:
    """Its trainings, as a journal has them."""
    curves_CSEX = np.stack([getattr(table, name) for name in COLUMNS], axis=-1)
    for config, curves_SEX in zip(table.configs, curves_CSEX, strict=True):
        for seed, curve_EX in zip(table.seeds, curves_SEX, strict=True):
            reached = curve_EX[~np.isnan(curve_EX).all(axis=1)]
            epochs = [[None if np.isnan(value) else float(value) for value in epoch] for epoch in reached]
            yield {"data": table.data, "key": seeded(config, seed).key, "epochs": epochs}


def latencies(table: Table) -> Iterator[dict[str, Any]]:
    """Its figures, as a journal has them."""
    of: dict[str, Architecture | Teacher] = {one.key: one for one in table.architectures}
    for key, one in {**of, TEACHER: table.teacher}.items():
        if np.isfinite(one.p90_ms):
            figure = {name: getattr(one, name) for name in WANTED}
            yield {"data": table.data, "architecture": key, "taken": EARLIER, "latency": figure}
