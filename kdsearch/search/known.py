"""What is known when a trial is chosen: the trials so far, and latencies that need no measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kdsearch.core.records import TrialConfig, Tried


def _never_measured(config: TrialConfig) -> float | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Known:
    """Handed to whoever asks; frozen for the length of one question."""

    tried: Sequence[Tried] = ()
    """Every trial of the study, in any state."""
    latency_ms: Callable[[TrialConfig], float | None] = field(default=_never_measured)
    """The figure of a configuration's architecture on the study's profile; None where nobody measured it."""
    quality_floor: float = 0.0
    """A student below it is worth nothing."""
