"""How sure a place on the front is: a paired bootstrap over rows and over seeds.

Every draw takes the same rows for all trials, so that what makes some rows hard does not blur which trial is
better, and draws the seeds of each trial anew. On the front of a draw is who no other one beats: neither a
faster one that is at least as good, nor an equally fast one that is better. Two that are equal in both stand
there side by side, as in `core.pareto.front`.

Few seeds say little of how far seeds lie apart, and a single one nothing: then the interval is that of the
rows alone, and another training may land outside of it.
Letters: E entries, S seeds, N rows, C classes, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kdsearch.core.records import Standing
from kdsearch.measure import quality
from kdsearch.measure.quality import Floats, Ints

DRAWS = 2000
SEED = 17


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A trial that may be on the front."""

    number: int
    latency_ms: float
    logits_by_seed: Mapping[int, Floats] = field(repr=False)
    """(N, C) of each training, all on the same rows in the same order."""


def standings(
    entries: Sequence[Entry],
    labels_N: Ints,
    *,
    labels: tuple[str, ...],
    objective: str,
    draws: int = DRAWS,
    seed: int = SEED,
) -> list[Standing]:
    """One for each entry, in the order given; ValueError where logits are missing or of other rows."""
    _check(entries, len(labels_N))
    if not entries:
        return []
    seeds = [sorted(entry.logits_by_seed) for entry in entries]
    logits = [e.logits_by_seed[s] for e, own in zip(entries, seeds, strict=True) for s in own]
    every_XD = quality.resampled(logits, labels_N, labels=labels, objective=objective, seed=seed, draws=draws)
    scores = [quality.score(each, labels_N, labels=labels, objective=objective).quality for each in logits]
    ends = np.cumsum([len(own) for own in seeds])[:-1]
    values_ED = np.stack(
        [
            of_drawn_seeds(values_SD, seed=(seed, entry.number))
            for entry, values_SD in zip(entries, np.split(every_XD, ends), strict=True)
        ]
    )
    on_front_E = _on_front(values_ED, np.array([entry.latency_ms for entry in entries])).mean(axis=1)
    lows_E, highs_E = np.percentile(values_ED, quality.PERCENTILES, axis=1)
    means = [float(own.mean()) for own in np.split(np.array(scores), ends)]
    return [
        Standing(
            number=entry.number,
            quality=means[e],
            low=float(lows_E[e]),
            high=float(highs_E[e]),
            on_front=float(on_front_E[e]),
            seeds=tuple(seeds[e]),
        )
        for e, entry in enumerate(entries)
    ]


def _check(entries: Sequence[Entry], num_rows: int) -> None:
    for entry in entries:
        sizes = {len(logits_NC) for logits_NC in entry.logits_by_seed.values()}
        if sizes != {num_rows}:
            raise ValueError(f"trial {entry.number} has logits of {sorted(sizes)} rows, not of {num_rows}")


def of_drawn_seeds(values_SD: Floats, *, seed: int | tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Mean over seeds drawn anew for every draw of rows, spread as much as seeds are (S / (S - 1))."""
    num_seeds = len(values_SD)
    drawn_SD = np.random.default_rng(seed).integers(num_seeds, size=values_SD.shape)
    off_D = np.take_along_axis(values_SD, drawn_SD, 0).mean(0) - values_SD.mean(0)
    spread = np.sqrt(num_seeds / (num_seeds - 1)) if num_seeds > 1 else 1.0
    return np.asarray(values_SD.mean(0) + spread * off_D)


def _on_front(values_ED: Floats, latencies_E: Floats) -> npt.NDArray[np.bool_]:
    found = np.ones(values_ED.shape, bool)
    for e, (values_D, latency) in enumerate(zip(values_ED, latencies_E, strict=True)):
        beaten_ED = (values_ED >= values_D) & (latencies_E < latency)[:, None]
        beaten_ED |= (values_ED > values_D) & (latencies_E == latency)[:, None]
        found[e] = ~beaten_ED.any(axis=0)
    return found
