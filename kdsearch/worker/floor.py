"""Quality floor: what a student reaches that has learned nothing but which label is the most frequent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kdsearch.measure.quality import score


def trivial_quality(labels_N: npt.NDArray[np.integer], labels: tuple[str, ...], objective: str) -> float:
    """The objective of always saying the most frequent label of the N rows.

    A recall at a precision is about the order of the rows, of which such a student says nothing: 0.
    """
    if objective.startswith("recall@"):
        return 0.0
    most = int(np.bincount(labels_N[labels_N >= 0], minlength=len(labels)).argmax())
    logits_NC = np.zeros((len(labels_N), len(labels)), np.float32)
    logits_NC[:, most] = 1.0
    return score(logits_NC, labels_N, labels=labels, objective=objective).quality
