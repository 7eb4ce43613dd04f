"""`mo_asha`: asynchronous successive halving with two objectives, stopping type (Schmucker et al. 2021).

Saves more than `front` and errs more: a slow starter is compared with what started fast.
"""

from __future__ import annotations

from kdsearch.search.pruners.base import Pruner
from kdsearch.search.pruners.halving import Halving
from kdsearch.search.pruners.ranking import by_dominance


def mo_asha() -> Pruner:
    """Two objectives; who is not among the leaders on arrival stays where it is."""
    return Halving("mo_asha", by_dominance, needs_latency=True, promotes=False)
