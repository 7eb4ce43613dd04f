"""Standings: intervals that cover, and a place on the front that says how sure it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdsearch.core.records import Standing
from kdsearch.measure.standing import Entry, of_drawn_seeds, standings

LABELS = ("ham", "spam")


def logits(right_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Logits that give the label on some rows, and the other class elsewhere."""
    said_N = np.where(right_N, labels_N, 1 - labels_N)
    return np.eye(2, dtype=np.float32)[said_N]


def entry(number: int, latency_ms: float, *seeds: np.ndarray) -> Entry:
    return Entry(number=number, latency_ms=latency_ms, logits_by_seed=dict(enumerate(seeds, 1)))


def stand(entries: list[Entry], labels_N: np.ndarray, **how: Any) -> list[Standing]:
    return standings(entries, labels_N, **{"labels": LABELS, "objective": "accuracy", "draws": 500, **how})


@pytest.fixture(name="labels_N")
def random_labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, 400)


def noisy(labels_N: np.ndarray, share: float, seed: int) -> np.ndarray:
    return logits(np.random.default_rng(seed).random(len(labels_N)) < share, labels_N)


def test_who_is_alone_is_on_the_front(labels_N: np.ndarray) -> None:
    (only,) = stand([entry(3, 1.0, noisy(labels_N, 0.8, 1), noisy(labels_N, 0.7, 2))], labels_N)
    assert (only.number, only.on_front, only.verdict, only.seeds) == (3, 1.0, "on the front", (1, 2))
    assert only.low < only.quality < only.high
    assert only.quality == pytest.approx(0.75, abs=0.05)
    assert stand([], labels_N) == []


def test_clearly_better_and_faster_leaves_nothing_to_the_other(labels_N: np.ndarray) -> None:
    good, bad = noisy(labels_N, 0.9, 1), noisy(labels_N, 0.6, 2)
    first, second = stand([entry(0, 2.0, bad), entry(1, 1.0, good)], labels_N)
    assert (first.verdict, second.verdict) == ("behind", "on the front")
    assert first.on_front < 0.01 and second.on_front == 1.0
    slow, fast = stand([entry(0, 2.0, good), entry(1, 1.0, bad)], labels_N)
    assert slow.verdict == fast.verdict == "on the front", "each is best at something"


def test_equals_stand_side_by_side_and_the_slower_of_them_is_behind(labels_N: np.ndarray) -> None:
    same = noisy(labels_N, 0.8, 1)
    assert [s.on_front for s in stand([entry(0, 1.0, same), entry(1, 1.0, same)], labels_N)] == [1.0, 1.0]
    assert [s.on_front for s in stand([entry(0, 1.0, same), entry(1, 1.1, same)], labels_N)] == [1.0, 0.0]


def test_what_few_rows_cannot_tell_apart_is_a_tie(labels_N: np.ndarray) -> None:
    right_N = np.random.default_rng(5).random(len(labels_N)) < 0.8
    other_N = right_N.copy()
    other_N[np.flatnonzero(right_N)[:6]] = False
    other_N[np.flatnonzero(~right_N)[:7]] = True
    slow, fast = stand(
        [entry(0, 2.0, logits(other_N, labels_N)), entry(1, 1.0, logits(right_N, labels_N))], labels_N
    )
    assert slow.quality > fast.quality
    assert slow.verdict == "tie" and 0.2 < slow.on_front < 0.9 and fast.on_front == 1.0


def test_more_rows_narrow_the_interval() -> None:
    widths = []
    for rows in (100, 400, 1600):
        labels_N = np.zeros(rows, np.int64)
        (only,) = stand([entry(0, 1.0, logits(np.arange(rows) % 5 > 0, labels_N))], labels_N)
        assert only.quality == pytest.approx(0.8)
        widths.append(only.high - only.low)
    assert widths[0] / widths[1] == pytest.approx(2.0, rel=0.25)
    assert widths[1] / widths[2] == pytest.approx(2.0, rel=0.25)


def test_seeds_that_lie_apart_widen_it(labels_N: np.ndarray) -> None:
    apart = [noisy(labels_N, share, 1) for share in (0.6, 0.9)]
    close = [noisy(labels_N, 0.75, seed) for seed in (1, 2)]
    wide, narrow = stand([entry(0, 1.0, *apart), entry(1, 2.0, *close)], labels_N)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_each_draw_takes_the_same_rows_for_all(labels_N: np.ndarray) -> None:
    """One that is right wherever the other is, and on one row more, is better in almost every draw."""
    right_N = np.random.default_rng(5).random(len(labels_N)) < 0.8
    more_N = right_N.copy()
    more_N[np.flatnonzero(~right_N)[:8]] = True
    slow, fast = stand(
        [entry(0, 2.0, logits(more_N, labels_N)), entry(1, 1.0, logits(right_N, labels_N))], labels_N
    )
    assert slow.low < fast.high, "apart, the intervals could not tell"
    assert slow.verdict == "on the front"


def test_logits_of_other_rows_are_refused(labels_N: np.ndarray) -> None:
    with pytest.raises(ValueError, match="trial 4 has logits of"):
        stand([entry(4, 1.0, noisy(labels_N[1:], 0.8, 1))], labels_N)
    with pytest.raises(ValueError, match="trial 4 has logits of"):
        stand([entry(4, 1.0)], labels_N)


def test_drawn_seeds_spread_as_much_as_seeds_do() -> None:
    """The variance of a mean of S seeds is s² / S, with s² over S - 1; one seed does not spread."""
    values_S = np.array([0.1, 0.4, 0.2, 0.9])
    drawn_D = of_drawn_seeds(np.repeat(values_S[:, None], 20_000, axis=1), seed=3)
    assert drawn_D.mean() == pytest.approx(values_S.mean(), abs=0.01)
    assert drawn_D.var() == pytest.approx(values_S.var(ddof=1) / 4, rel=0.05)
    assert np.ptp(of_drawn_seeds(np.full((1, 50), 0.3), seed=3)) == 0


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Rows and seeds are both drawn anew; on a hard row every training of a trial is likely to fail."""
    rng, covered, rounds, labels_N = np.random.default_rng(23), 0, 200, np.zeros(300, np.int64)
    for round_ in range(rounds):
        ease_N = rng.beta(0.8, 0.2, 300)
        seeds = [logits(rng.random(300) < ease_N + rng.normal(0, 0.01), labels_N) for _ in range(5)]
        (found,) = stand([entry(0, 1.0, *seeds)], labels_N, draws=200, seed=round_)
        covered += found.low <= 0.8 <= found.high
    assert 0.88 <= covered / rounds <= 0.995
