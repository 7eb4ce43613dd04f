"""From journals to tables: every configuration of which all seeds are trained, with its latency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.search.design import architecture_name, seeded
from benchmarks.search.ground import Ground
from benchmarks.search.table import Architecture, FloatArray, Table
from kdsearch.core.records import TrialConfig
from kdsearch.core.studyfile import spec_to_json

TEACHER = "teacher"
"""Stands for an architecture's key in the journal of latencies."""
COLUMNS = ("quality_CSE", "nll_CSE", "seconds_CSE", "cpu_seconds_CSE")
Record = Mapping[str, Any]


def assemble(
    ground: Ground,
    configs: Sequence[TrialConfig],
    seeds: Sequence[int],
    runs: Iterable[Record],
    latencies: Iterable[Record],
) -> Table:
    """The table of one data set, as far as it goes."""
    found = _complete(ground.data, configs, seeds, runs)
    keys = [ground.material.architecture(configs[number]) for number in found]
    names = {
        key: architecture_name(configs[number]) for key, number in zip(keys, found, strict=True)
    }  # in the order in which they are first met
    figures = newest(latencies, ground.data)
    order = {key: place for place, key in enumerate(names)}
    return Table(
        data=ground.data,
        spec=spec_to_json(ground.context.spec),
        facts=ground.facts.to_json(),
        numbers_C=tuple(found),
        configs=tuple(configs[number] for number in found),
        seeds=tuple(seeds),
        rows_per_epoch=ground.rows_per_epoch,
        **_curves(list(found.values()), len(seeds), ground.context.spec.training.epochs),
        architecture_C=tuple(order[key] for key in keys),
        architectures=tuple(
            Architecture(key=key, name=name, **figures.get(key, {})) for key, name in names.items()
        ),
        teacher=replace(ground.teacher(), **figures.get(TEACHER, {})),
        profile=ground.prepared.profile,
    )


def _complete(
    data: str, configs: Sequence[TrialConfig], seeds: Sequence[int], runs: Iterable[Record]
) -> dict[int, list[Record]]:
    """Number of a configuration -> its trainings by seed."""
    by_key = {run["key"]: run for run in runs if run["data"] == data}
    found = {}
    for number, config in enumerate(configs):
        own = [by_key.get(seeded(config, seed).key) for seed in seeds]
        trained = [run for run in own if run is not None]
        if len(trained) == len(own):
            found[number] = trained
    return found


def newest(latencies: Iterable[Record], data: str) -> dict[str, dict[str, Any]]:
    """Of each architecture, the least disturbed round of the last time that figures were taken."""
    rounds: dict[str, list[Record]] = {}
    for record in latencies:
        if record["data"] == data:
            known = rounds.setdefault(record["architecture"], [])
            if known and record["taken"] > known[0]["taken"]:
                known.clear()
            if not known or record["taken"] == known[0]["taken"]:
                known.append(record)
    best = {key: min((r["latency"] for r in known), key=_p90) for key, known in rounds.items()}
    wanted = ("p50_ms", "p90_ms", "size_mb", "num_params", "noisy")
    return {key: {name: figure[name] for name in wanted} for key, figure in best.items()}


def _p90(figure: Mapping[str, Any]) -> float:
    return float(figure["p90_ms"])


def _curves(found: list[list[Record]], num_seeds: int, num_epochs: int) -> dict[str, FloatArray]:
    values = np.full((len(COLUMNS), len(found), num_seeds, num_epochs), np.nan)
    for c, runs in enumerate(found):
        for s, run in enumerate(runs):
            for e, epoch in enumerate(run["epochs"]):
                values[:, c, s, e] = [np.nan if value is None else value for value in epoch]
    return dict(zip(COLUMNS, values, strict=True))
