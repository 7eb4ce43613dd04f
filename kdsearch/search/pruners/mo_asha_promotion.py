"""`mo_asha_promotion`: asynchronous successive halving with two objectives, promotion type.

A trial that is not among its rung's leaders waits, and goes on once the rung has room for it.
"""

from __future__ import annotations

from kdsearch.search.pruners.base import Pruner
from kdsearch.search.pruners.halving import Halving
from kdsearch.search.pruners.ranking import by_dominance


def mo_asha_promotion() -> Pruner:
    """Two objectives; leaders among those that wait are called back, highest rung first."""
    return Halving("mo_asha_promotion", by_dominance, needs_latency=True, promotes=True)
