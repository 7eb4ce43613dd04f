"""What is wrong with a study, if anything is: pure functions that give cards; none is the normal case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np

from dashboard import wording
from dashboard.queries.studies import Snapshot
from kdsearch.core.space import Scalar
from kdsearch.store.columns import ALIVE_S, Pulse, TrialColumns
from kdsearch.store.reads import StudyRow, WorkerRow

ENOUGH = 10
"""Trials before anything is said about how the search goes."""
EDGE = 0.02
"""Of a range, on each side."""
MANY_FAILURES = 0.1
MANY_NOISY = 0.1


class Card(NamedTuple):
    """One thing that is wrong."""

    title: str
    advice: str


def cards(
    snapshot: Snapshot, pulse: Pulse, *, workers: Sequence[WorkerRow], best: Mapping[str, Scalar] | None
) -> list[Card]:
    """Everything that is wrong; `best` is the parameters of the best student, dotted."""
    trials = snapshot.trials
    found = [
        nothing_feasible(trials, snapshot.study.name),
        many_failures(trials, snapshot.study.name),
        noisy(trials),
        silent(workers, pulse),
        worse_than_recipes(trials),
        at_an_edge(snapshot.study, trials, best or {}),
    ]
    return [card for card in found if card is not None]


def nothing_feasible(trials: TrialColumns, study: str) -> Card | None:
    """Trials are complete or were turned down, and none keeps to the constraints."""
    complete, rejected = int(trials.complete.sum()), int((trials.state == "rejected").sum())
    if complete + rejected < 3 or (trials.complete & trials.feasible).any():
        return None
    return Card(
        "Nothing feasible",
        f"None of {wording.plural(complete + rejected, 'trial')} keeps to the study's constraints "
        f"({rejected} were not trained for that reason). Raise the limits, or try smaller students: "
        f"`kdsearch trial list {study}` shows what each took.",
    )


def many_failures(trials: TrialColumns, study: str) -> Card | None:
    """More than a tenth of what ended has failed, and at least three."""
    failed = int((trials.state == "failed").sum())
    ended = int(np.isin(trials.state, ("complete", "stopped", "rejected", "failed")).sum())
    if failed < 3 or failed <= MANY_FAILURES * ended:
        return None
    return Card(
        "Many failures",
        f"{failed} of {wording.plural(ended, 'trial')} that ended have failed. The Workers page shows their "
        f"tracebacks; after mending the cause: `kdsearch trial retry {study} NUMBER`.",
    )


def noisy(trials: TrialColumns) -> Card | None:
    """More than a tenth of the latencies may have been disturbed."""
    measured = np.isfinite(trials.p90_ms)
    num, disturbed = int(measured.sum()), int((trials.noisy & measured).sum())
    if disturbed < 2 or disturbed <= MANY_NOISY * num:
        return None
    return Card(
        "Noisy latency",
        f"{disturbed} of {wording.plural(num, 'latency figure')} were taken while something else may have "
        "used the machine. Differences between such figures may be chance: leave the machine to workers, or "
        "measure on one that is quiet.",
    )


def silent(workers: Sequence[WorkerRow], pulse: Pulse) -> Card | None:
    """Workers of an open study that were not seen for a while and did not say goodbye."""
    limit = timedelta(seconds=ALIVE_S)
    gone = [w for w in workers if w.state == "active" and pulse.now - w.seen_at > limit]
    if not gone or pulse.state not in ("open", "paused"):
        return None
    last = max(gone, key=lambda worker: worker.seen_at)
    alive = "none is alive" if pulse.num_alive == 0 else f"{pulse.num_alive} alive"
    return Card(
        "Silent workers",
        f"{wording.plural(len(gone), 'worker')} ended without a word ({alive}); the last one, on "
        f"{wording.plain(last.host)}, was seen {wording.ago(last.seen_at, pulse.now)}. Their trials are "
        "taken up again by others. One more: `kdsearch worker start`.",
    )


def worse_than_recipes(trials: TrialColumns) -> Card | None:
    """After enough trials the search has found nothing as good as what the literature recommends."""
    usable = trials.complete & trials.feasible
    recipes = usable & np.array([str(o).startswith("preset:") for o in trials.origin], np.bool_)
    searched = usable & (trials.origin == "sampler")
    if not recipes.any() or searched.sum() < ENOUGH:
        return None
    best, found = float(trials.quality[recipes].max()), float(trials.quality[searched].max())
    if found >= best:
        return None
    i = int(np.flatnonzero(recipes & (trials.quality == best))[0])
    return Card(
        "Searching is worse than the recipe",
        f"The best of {wording.plural(int(searched.sum()), 'searched trial')} has {found:.4f}; trial "
        f"{trials.number[i]}, a recipe of the literature ({wording.plain(str(trials.origin[i]))}), has "
        f"{best:.4f}. Give the search more trials, or narrow its ranges around the recipe.",
    )


def at_an_edge(study: StudyRow, trials: TrialColumns, best: Mapping[str, Scalar]) -> Card | None:
    """A parameter of the best student lies at an end of the range that the study file gives."""
    if trials.complete.sum() < ENOUGH:
        return None
    found = [
        f"{wording.plain(name)} = {_said(best[name])} ({low:g} to {high:g})"
        for name, low, high, log in ranges(study)
        if name in best and _at_edge(best[name], low, high, log=log)
    ]
    if not found:
        return None
    return Card(
        "Best value at a range's edge",
        f"The best student has {'; '.join(found)}. A better one may lie beyond: widen it in a new study.",
    )


def ranges(study: StudyRow) -> Iterator[tuple[str, float, float, bool]]:
    """(dotted name, low, high, log) of every range that the study's file gives in numbers."""
    spec = study.spec
    for key in ("students", "schemes"):
        for entry in spec.get(key) or ():
            if isinstance(entry, Mapping):
                yield from _ranges(f"{entry['type']}.", entry)
    training = {k: v for k, v in (spec.get("training") or {}).items() if k in ("learning_rate", "batch_size")}
    yield from _ranges("", training)


def _ranges(prefix: str, entries: Mapping[str, Any]) -> Iterator[tuple[str, float, float, bool]]:
    for name, value in entries.items():
        if isinstance(value, Mapping) and {"min", "max"} <= value.keys():
            yield f"{prefix}{name}", float(value["min"]), float(value["max"]), bool(value.get("log"))
        elif isinstance(value, list) and len(value) > 2 and all(isinstance(v, (int, float)) for v in value):
            yield f"{prefix}{name}", float(min(value)), float(max(value)), False


def _at_edge(value: Scalar, low: float, high: float, *, log: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < high:
        return False
    place = float(value)
    if log:
        place, low, high = (float(np.log(v)) for v in (place, low, high))
    return min(place - low, high - place) <= EDGE * (high - low)


def _said(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
