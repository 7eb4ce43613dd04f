"""No pruner: every trial is trained to its end."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.core.records import Decision, Tried
from kdsearch.search.pruners.base import Situation


class NoPruner:
    """Lets every trial go on."""

    def judge(self, trial: Tried, situation: Situation) -> Decision:
        """Go on."""
        return Decision(action="continue", rule="none", reason="nothing stops trials of this study early")

    def promotions(self, situation: Situation) -> Sequence[tuple[int, Decision]]:
        """None: what was paused for another reason waits for its own."""
        return ()
