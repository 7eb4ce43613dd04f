"""How good logits are on labelled rows: the study's objective, the usual figures, and their intervals.

An F1, recall or coverage that is undefined counts as 0. All figures of an objective come from one function
of weighted rows, so that an interval and the figure it belongs to cannot disagree.
Letters: N rows, C classes, K historical teachers, U distinct kinds of row, S samples of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from kdsearch.core.records import Confusion, Scores

Floats: TypeAlias = npt.NDArray[np.floating]
Ints: TypeAlias = npt.NDArray[np.integer]
Values: TypeAlias = Callable[[Floats], Floats]
"""Weights (S, U) of the kinds of row -> the objective (S,)."""

DRAWS_AT_ONCE = 64
"""Bounds the memory of a bootstrap over many rows."""
PERCENTILES = (2.5, 97.5)


class Difference(NamedTuple):
    """Quality of the first logits minus that of the second, with its 95 % interval."""

    value: float
    low: float
    high: float


def _log_softmax(logits_NC: Floats) -> npt.NDArray[np.float64]:
    shifted = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _f1(weights_SU: Floats, true_U: Ints, predicted_U: Ints, label: int) -> Floats:
    is_true, is_predicted = true_U == label, predicted_U == label
    hits = weights_SU[:, is_true & is_predicted].sum(1)
    return _ratio(2 * hits, weights_SU[:, is_true].sum(1) + weights_SU[:, is_predicted].sum(1))


def _recall_at_precision(
    weights_SU: Floats, is_true_U: npt.NDArray[np.bool_], log_p_U: Floats, at: float
) -> Floats:
    """Largest recall of any threshold whose precision is high enough."""
    order = np.argsort(-log_p_U, kind="stable")
    thresholds = np.append(np.diff(log_p_U[order]) != 0, True)  # equal scores fall together
    weights, is_true = weights_SU[:, order], is_true_U[order]
    hits = np.cumsum(weights * is_true, axis=1)[:, thresholds]
    precision = _ratio(hits, np.cumsum(weights, axis=1)[:, thresholds])
    recall = _ratio(hits, np.broadcast_to(hits[:, -1:], hits.shape))
    best: Floats = np.where(precision >= at, recall, 0.0).max(axis=1)
    return best


def _values(logits_NC: Floats, true_N: Ints, labels: tuple[str, ...], objective: str) -> Values:
    """The objective as a function of weights on the rows."""
    kind, _, name = objective.partition(":")
    if kind.startswith("recall@precision="):
        label, at = labels.index(name), float(kind.removeprefix("recall@precision="))
        log_p_N = _log_softmax(logits_NC)[:, label]
        return lambda weights: _recall_at_precision(weights, true_N == label, log_p_N, at)
    predicted_N = logits_NC.argmax(1)
    if kind == "f1":
        return lambda weights: _f1(weights, true_N, predicted_N, labels.index(name))
    if kind == "macro_f1":
        return lambda weights: np.mean(
            [_f1(weights, true_N, predicted_N, c) for c in range(len(labels))], axis=0
        )
    if kind == "accuracy":
        return lambda weights: weights[:, true_N == predicted_N].sum(1) / weights.sum(1)
    raise ValueError(f"unknown objective {objective!r}")


def score(
    logits_NC: Floats,
    labels_N: Ints,
    *,
    labels: tuple[str, ...],
    objective: str,
    teacher_logits_NC: Floats | None = None,
    historical_NKC: Floats | None = None,
) -> Scores:
    """All figures of logits. Rows with label -1 count for the agreement with the teacher only.

    `historical_NKC` are the logits of the K historical teachers; without them coverage is of the teacher's.

    Raises ValueError if no row has a label.
    """
    known = _known(labels_N)
    true_N, log_p_NC = labels_N[known], _log_softmax(logits_NC[known])
    once = np.ones((1, len(known)))

    def value(name: str) -> float:
        return float(_values(logits_NC[known], true_N, labels, name)(once)[0])

    agreement = None
    if teacher_logits_NC is not None:
        agreement = float(np.mean(logits_NC.argmax(1) == teacher_logits_NC.argmax(1)))
    if historical_NKC is None and teacher_logits_NC is not None:
        historical_NKC = teacher_logits_NC[:, None, :]
    predicted_N = logits_NC[known].argmax(1)
    return Scores(
        quality=value(objective),
        accuracy=value("accuracy"),
        macro_f1=value("macro_f1"),
        nll=float(-log_p_NC[np.arange(len(known)), true_N].mean()),
        recall=_recalls(predicted_N, true_N, labels),
        agreement=agreement,
        coverage=None if historical_NKC is None else _coverage(predicted_N, true_N, historical_NKC[known]),
    )


def confusion(logits_NC: Floats, labels_N: Ints) -> Confusion:
    """How many rows of each true label were taken for each label; rows without a label are left out."""
    num_labels = logits_NC.shape[1]
    known = np.flatnonzero(labels_N >= 0)
    cells = labels_N[known].astype(np.int64) * num_labels + logits_NC[known].argmax(1)
    counts_CC = np.bincount(cells, minlength=num_labels**2).reshape(num_labels, num_labels)
    return tuple(tuple(map(int, row)) for row in counts_CC)


def _coverage(predicted_N: Ints, true_N: Ints, historical_NKC: Floats) -> float:
    """Of the rows that at least one teacher gets right, the share that is right; 0 where there is none."""
    reached_N = (historical_NKC.argmax(2) == true_N[:, None]).any(axis=1)
    return float(np.mean(predicted_N[reached_N] == true_N[reached_N])) if reached_N.any() else 0.0


def _known(labels_N: Ints) -> npt.NDArray[np.int64]:
    known = np.flatnonzero(labels_N >= 0)
    if not len(known):
        raise ValueError("no row has a label, so there is nothing to score")
    return known


def _recalls(predicted_N: Ints, true_N: Ints, labels: tuple[str, ...]) -> Mapping[str, float]:
    hits = np.bincount(true_N[predicted_N == true_N], minlength=len(labels)).astype(float)
    found = _ratio(hits, np.bincount(true_N, minlength=len(labels)).astype(float))
    return {label: float(share) for label, share in zip(labels, found, strict=True)}


def _kinds(logits: list[Floats], true_N: Ints, objective: str) -> tuple[Ints, Ints]:
    """Rows that stand for all rows of their kind, and how many those are.

    Where only the predicted class matters there are few kinds, and drawing how often each occurs is the same
    as drawing rows, but fast.
    """
    if objective.startswith("recall@"):
        return np.arange(len(true_N)), np.ones(len(true_N), np.int64)
    kinds = np.stack([true_N, *(each.argmax(1) for each in logits)], axis=1)
    _, rows, counts = np.unique(kinds, axis=0, return_index=True, return_counts=True)
    return rows, counts


def resampled(
    logits: Sequence[Floats],
    labels_N: Ints,
    *,
    labels: tuple[str, ...],
    objective: str,
    seed: int,
    draws: int,
) -> Floats:
    """The objective (len(logits), draws) on resampled rows, the same rows for all logits."""
    known = _known(labels_N)
    kept, true_N = [each[known] for each in logits], labels_N[known]
    rows, counts = _kinds(kept, true_N, objective)
    functions = [_values(each[rows], true_N[rows], labels, objective) for each in kept]
    rng = np.random.default_rng(seed)
    parts: list[Floats] = []
    for start in range(0, draws, DRAWS_AT_ONCE):
        size = min(DRAWS_AT_ONCE, draws - start)
        weights_SU = rng.multinomial(len(known), counts / len(known), size=size).astype(float)
        parts.append(np.stack([function(weights_SU) for function in functions]))
    return np.concatenate(parts, axis=1)


def bootstrap_interval(
    logits_NC: Floats,
    labels_N: Ints,
    *,
    labels: tuple[str, ...],
    objective: str,
    seed: int,
    draws: int = 1000,
) -> tuple[float, float]:
    """95 % interval of the objective: percentiles over resampled rows."""
    values = resampled([logits_NC], labels_N, labels=labels, objective=objective, seed=seed, draws=draws)[0]
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def paired_bootstrap(
    first_NC: Floats,
    second_NC: Floats,
    labels_N: Ints,
    *,
    labels: tuple[str, ...],
    objective: str,
    seed: int,
    draws: int = 1000,
) -> Difference:
    """How much better the first logits are than the second on the same rows."""
    known = _known(labels_N)
    once = np.ones((1, len(known)))
    first, second = (
        float(_values(each[known], labels_N[known], labels, objective)(once)[0])
        for each in (first_NC, second_NC)
    )
    values = resampled(
        [first_NC, second_NC], labels_N, labels=labels, objective=objective, seed=seed, draws=draws
    )
    low, high = np.percentile(values[0] - values[1], PERCENTILES)
    return Difference(first - second, float(low), float(high))
