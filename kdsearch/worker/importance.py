"""Importances for the dashboard, worked out by a worker between trials now and then; never a worker's end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import log

import structlog

from kdsearch.core.records import Tried
from kdsearch.search.importance import FEWEST, importances
from kdsearch.store import reads
from kdsearch.store.importances import Objective, set_importances
from kdsearch.worker.context import WorkerContext

EVERY = 10
"""New complete trials after which they are worked out anew; in large studies a tenth of the trials."""
LONGEST_S = 10.0
"""Of the processor. A worker that took longer leaves it to others: its machine has better to do."""

logger = structlog.get_logger()


class Importances:
    """Looks now and then whether there are enough new trials."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._too_slow = False

    def look(self, *, at_end: bool = False) -> None:
        """Work them out if they are due; at the end of a study if any trial is new. Raises nothing."""
        if self._too_slow:
            return
        began = time.thread_time()
        try:
            self._look(at_end)
        except Exception as error:  # noqa: BLE001 - nobody waits for them
            logger.warning("no importances", error=f"{type(error).__name__}: {error}")
        self._too_slow = time.thread_time() - began > LONGEST_S

    def _look(self, at_end: bool) -> None:
        engine, study_id = self._context.store.engine, self._context.study.id
        complete = [trial for trial in self._context.history.read(engine) if trial.state == "complete"]
        if len(complete) < FEWEST:
            return
        known = min((row.num_trials for row in reads.importances(engine, study_id)), default=0)
        if len(complete) - known < (1 if at_end else max(EVERY, len(complete) // 10)):
            return
        self._put("quality", [(trial, trial.quality) for trial in complete])
        in_log = [(t, log(t.latency_ms) if t.latency_ms else None) for t in complete]
        self._put("latency", in_log)

    def _put(self, objective: Objective, valued: Sequence[tuple[Tried, float | None]]) -> None:
        usable = [(trial.config, value) for trial, value in valued if value is not None]
        self._context.progress.step()
        found = importances([config for config, _ in usable], [value for _, value in usable])
        engine, study_id = self._context.store.engine, self._context.study.id
        set_importances(engine, study_id, objective, found, num_trials=len(valued))
