"""How well are trials that wait at a rung forecast, beside how they ended when they were trained on?

    .venv/bin/python -m benchmarks.search.forecasts [--trainings 40] [--seeds 6]

Optuna's default, after stratified first trials and with promotion, is replayed on each table with four
workers; after a third, two thirds and all of its questions every waiting trial is forecast, as the sampler
`known_latency` does it and by the mean gain of the finished ones, and compared with the end that the table
recorded. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.arms import table
from benchmarks.search.methods import METHODS, asker_of
from benchmarks.search.replay import Stage
from benchmarks.search.simulator import Asker, Play, Setting, Simulator
from benchmarks.search.table import TABLES, FloatArray
from kdsearch.core.records import Tried
from kdsearch.search.known import Known
from kdsearch.search.proposing import MIN_FORECAST, observations
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.pruners.base import Pruner

METHOD = "tpe_first_promotion"
WORKERS = 4
AFTER = (1 / 3, 2 / 3, 1.0)


class Error(NamedTuple):
    """Of one forecast."""

    missing: float
    """The end minus its forecast."""
    sd: float
    """As the forecast says."""


class Watched(Simulator):
    """Keeps all trials as they stood at each question."""

    def __init__(self, setting: Setting, asker: Asker, pruner: Pruner, latency_of: Sequence[float]) -> None:
        super().__init__(setting, asker, pruner, latency_of)
        self.seen: list[list[Play]] = []

    def known(self) -> Known:
        """For whoever proposes."""
        self.seen.append([replace(play) for play in self.plays])
        return super().known()


def snapshots(stage: Stage, seed: int) -> Iterator[list[Play]]:
    """All trials, as they stood at some questions of a replay."""
    told = stage.truth.table.p90_ms_C.tolist()
    asker = asker_of(METHODS[METHOD], stage.snapper, seed)
    simulator = Watched(stage.setting(WORKERS, seed), asker, PRUNERS[METHODS[METHOD].pruner](), told)
    simulator.run(lambda running: lambda config: None)
    for share in AFTER:
        yield simulator.seen[max(0, int(share * len(simulator.seen)) - 1)]


def errors(plays: Sequence[Play]) -> Iterator[tuple[tuple[str, int], Error]]:
    """By (rule, epoch) of every waiting trial that can be forecast."""
    tried = [play.tried for play in plays]
    forecast = {trial.number: (quality, variance**0.5) for trial, quality, variance in observations(tried)}
    for play in plays:
        trial = play.tried
        if trial.state != "paused" or trial.number not in forecast or play.curve.broke_in is not None:
            continue
        epoch, end = max(trial.qualities), float(np.nanmax(play.curve.qualities_E))
        gains = _gains(tried, epoch)
        if len(gains) < MIN_FORECAST:
            continue
        quality, sd = forecast[trial.number]
        yield ("as `known_latency` does", epoch), Error(end - quality, sd)
        by_gain = max(trial.qualities.values()) + float(np.mean(gains))
        yield ("by the mean gain of the finished", epoch), Error(end - by_gain, float(np.std(gains)))


def _gains(tried: Sequence[Tried], epoch: int) -> list[float]:
    ends = [(t.quality, t.best_by(epoch)) for t in tried if t.state == "complete"]
    return [end - then for end, then in ends if end is not None and then is not None]


def rows(path: Path, trainings: int, seeds: int) -> Iterator[list[str]]:
    """Of the table of figures."""
    stage = Stage.open(path, trainings, "seconds")
    found: dict[tuple[str, int], list[Error]] = defaultdict(list)
    for seed in range(seeds):
        for plays in snapshots(stage, seed):
            for key, error in errors(plays):
                found[key].append(error)
    for (rule, epoch), own in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        missing, sd = np.array(own).T
        yield [
            stage.truth.table.data,
            str(epoch),
            rule,
            str(len(own)),
            f"{100 * missing.mean():+.1f}",
            f"{100 * _root_mean_square(missing):.1f}",
            f"{_root_mean_square(missing / np.maximum(sd, 1e-9)):.1f}",
        ]


def _root_mean_square(values: FloatArray) -> float:
    return float(np.sqrt((values**2).mean()))


def main(argv: Sequence[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, nargs="+", default=sorted(TABLES.glob("*.json.gz")))
    parser.add_argument("--trainings", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args(argv)
    header = (
        "table",
        "epoch",
        "forecast",
        "trials",
        "end above it, points",
        "error, points",
        "errors per spread",
    )
    found = [row for path in options.table for row in rows(path, options.trainings, options.seeds)]
    print(table(header, found))


if __name__ == "__main__":
    main()
