"""`asha`: asynchronous successive halving on quality alone, stopping type (Li et al. 2020).

A baseline: it knows no latency, and what it leaves over are the slow and good ones.
"""

from __future__ import annotations

from kdsearch.search.pruners.base import Pruner
from kdsearch.search.pruners.halving import Halving
from kdsearch.search.pruners.ranking import by_quality


def asha() -> Pruner:
    """One objective."""
    return Halving("asha", by_quality, needs_latency=False, promotes=False)
