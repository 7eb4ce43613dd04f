"""Trials side by side: means over their seeds, and paired differences to the first of them.

Everything is read from what the study stored on its validation pool. Letters: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsearch.export.report import Interval, Material, material_of
from kdsearch.measure.quality import Difference
from kdsearch.store.connect import Store
from kdsearch.store.reads import StudyRow, TrialRow


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One trial against the first one, on the same validation rows; intervals are 95 %."""

    trial: int
    quality: float
    interval: Interval
    seeds: int
    gain: Difference | None = None
    """Over the first one; None for itself."""
    right_alone: int | None = None
    """Rows that it gets right and the first one does not, with the seed of the study."""
    first_alone: int | None = None
    """Rows that the first one gets right and it does not."""

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``tie``: a tie where the interval of the difference holds 0."""
        if self.gain is None:
            return ""
        return "better" if self.gain.low > 0 else "worse" if self.gain.high < 0 else "tie"


def compare(store: Store, study: StudyRow, trials: Sequence[TrialRow]) -> list[Compared]:
    """In the order given; those without validation logits are left out, and what is first then, compares.

    Raises ArtifactError where something cannot be read. The study must have been prepared.
    """
    known = [trial for trial in trials if trial.validation_logits is not None]
    if not known or study.prepared is None:
        return []
    of = material_of(store, study)
    first, *others = known
    return [_compared(of, first), *(_compared(of, other, first) for other in others)]


def _compared(of: Material, trial: TrialRow, first: TrialRow | None = None) -> Compared:
    quality, interval = of.quality(trial)
    own = Compared(trial=trial.number, quality=quality, interval=interval, seeds=len(of.every(trial)))
    if first is None:
        return own
    labels_N = of.validation.labels_N
    right_N, first_N = (of.every(each)[0].argmax(axis=1) == labels_N for each in (trial, first))
    return Compared(
        trial=own.trial,
        quality=own.quality,
        interval=own.interval,
        seeds=own.seeds,
        gain=of.gain(trial, first),
        right_alone=int((right_N & ~first_N).sum()),
        first_alone=int((first_N & ~right_N).sum()),
    )
