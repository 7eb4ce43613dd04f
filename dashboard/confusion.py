"""Which classes a student takes for which: counts of true and predicted labels, and what follows from them.

Letters: C classes; rows are true labels, columns predicted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix with its labels."""

    labels: tuple[str, ...]
    counts_CC: Counts

    @property
    def class_counts(self) -> Counts:
        """Rows of each class in the validation pool."""
        counts: Counts = self.counts_CC.sum(axis=1)
        return counts

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Each row as shares of its class; zeros for a class that does not occur."""
        return self.counts_CC / np.maximum(self.class_counts, 1)[:, None]

    @property
    def recall(self) -> dict[str, float]:
        """Of each class, the share that is found."""
        return dict(zip(self.labels, np.diagonal(self.shares).tolist(), strict=True))


@dataclass(frozen=True)
class Pair:
    """A class that is taken for another."""

    truth: str
    predicted: str
    count: int
    share: float
    """Of the rows of the true class."""


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]] | None) -> Confusion | None:
    """From what a trial recorded; None where it recorded none, or for other labels than these."""
    if counts is None:
        return None
    counts_CC = np.asarray(counts, np.int64)
    if counts_CC.shape != (len(labels), len(labels)):
        return None
    return Confusion(tuple(labels), counts_CC)


def most_confused(found: Confusion, most: int) -> list[Pair]:
    """The pairs that go wrong most often, the largest first."""
    wrong_CC = found.counts_CC.copy()
    np.fill_diagonal(wrong_CC, 0)
    order = np.argsort(-wrong_CC, axis=None, kind="stable")[:most]
    shares = found.shares
    pairs = []
    for truth, predicted in zip(*np.unravel_index(order, wrong_CC.shape), strict=True):
        count = int(wrong_CC[truth, predicted])
        if count:
            share = float(shares[truth, predicted])
            pairs.append(Pair(found.labels[truth], found.labels[predicted], count, share))
    return pairs
