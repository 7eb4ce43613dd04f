"""The table of the search benchmark: a random design of configurations, trained on two data sets.

    export KDSEARCH_DATA=... KDSEARCH_TEACHER=... KDSEARCH_HOME=...
    .venv/bin/python -m benchmarks.search.train [--configs 300] [--workers 1]
    .venv/bin/python -m benchmarks.search.train --latency    # when nothing else runs
    .venv/bin/python -m benchmarks.search.train --tables     # write what there is, train nothing

studies/search_table.yaml is prepared once for each data set; then every configuration is trained with two
seeds, both data sets and both seeds of one before the next, so that what is there after a cut is balanced.
Killed at any time, the same command goes on; at most the running training of each worker is lost. More
configurations later, or more workers, train what is missing. The tables go to benchmarks/search/tables; what
is in them is not trained again either, on whatever machine, if the teacher comes out the same there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.arms import Bench, arguments, bench, changed, load_spec
from benchmarks.search import design, earlier
from benchmarks.search.assemble import TEACHER, assemble
from benchmarks.search.ground import Ground
from benchmarks.search.journal import Journal, records
from benchmarks.search.table import TABLES, Table
from kdsearch.cli.options import child_environment
from kdsearch.core.records import TrialConfig

RUNS, LATENCIES = "runs-*.jsonl", "latencies.jsonl"
SMALL_CONFIGS = 3


class Unit(NamedTuple):
    """One training."""

    ground: Ground
    number: int
    config: TrialConfig
    """With its own seed."""


def units(grounds: Sequence[Ground], configs: Sequence[TrialConfig], seeds: Sequence[int]) -> Iterator[Unit]:
    """Every training, configuration by configuration."""
    for number, config in enumerate(configs):
        for ground in grounds:
            for seed in seeds:
                yield Unit(ground, number, design.seeded(config, seed))


def train_all(
    todo: Sequence[Unit], path: Path, known: Sequence[Table] = (), *, shard: int = 0, shards: int = 1
) -> None:
    """Train this worker's share of what neither a journal of the folder nor a table has."""
    there = chain(records(path.parent, RUNS), *map(earlier.runs, known))
    done = {(run["data"], run["key"]) for run in there}
    own = todo[shard::shards]
    left = [unit for unit in own if (unit.ground.data, unit.config.key) not in done]
    print(f"{len(own) - len(left)} of {len(own)} trainings are there", file=sys.stderr, flush=True)
    began = time.perf_counter()
    with Journal.opened(path) as journal:
        for count, unit in enumerate(left, start=1):
            run = unit.ground.train(unit.config)
            journal.add({"number": unit.number, **run})
            each = (time.perf_counter() - began) / count
            print(said(unit, run, left=len(left) - count, each=each), file=sys.stderr, flush=True)


def said(unit: Unit, run: dict[str, Any], *, left: int, each: float) -> str:
    """A line of progress."""
    config, scored = unit.config, [epoch[0] for epoch in run["epochs"] if epoch[0] is not None]
    seconds = sum(epoch[2] for epoch in run["epochs"])
    cpu_seconds = sum(epoch[3] for epoch in run["epochs"])
    worth = f"{max(scored):.4f}" if scored else run["problem"]
    return (
        f"{unit.number} {run['data']} {config.student} {config.scheme} seed {config.seed}: {worth} "
        f"in {cpu_seconds:.1f} s of a core, {seconds:.1f} s by the clock; "
        f"{left} left, about {timedelta(seconds=round(left * each))}"
    )


# -------------------------------------------------------------------- latency


def measure_all(
    grounds: Sequence[Ground], configs: Sequence[TrialConfig], path: Path, *, rounds: int, again: bool
) -> None:
    """Figures of the teacher and every architecture in rounds: a busy minute spoils one round only."""
    known = set() if again else {(r["data"], r["architecture"]) for r in records(path.parent, path.name)}
    left = [pair for ground in grounds for pair in _to_measure(ground, configs) if pair[:2] not in known]
    by_name = {ground.data: ground for ground in grounds}
    taken = datetime.now(UTC).isoformat(timespec="seconds")
    with Journal.opened(path) as journal:
        for number in range(1, rounds + 1):
            for data, key, config in left:
                ground = by_name[data]
                found = ground.measure_teacher() if config is None else ground.measure(config)
                journal.add({"taken": taken, "architecture": key, **found})
            print(f"round {number} of {rounds}: {len(left)} figures", file=sys.stderr, flush=True)


def _to_measure(
    ground: Ground, configs: Sequence[TrialConfig]
) -> Iterator[tuple[str, str, TrialConfig | None]]:
    """The teacher, then every architecture of the design once."""
    yield ground.data, TEACHER, None
    first: dict[str, TrialConfig] = {}
    for config in configs:
        first.setdefault(ground.material.architecture(config), config)
    for key, config in first.items():
        yield ground.data, key, config


# -------------------------------------------------------------------- the command


def write_tables(
    grounds: Sequence[Ground],
    configs: Sequence[TrialConfig],
    seeds: Sequence[int],
    folder: Path,
    known: Sequence[Table],
    into: Path,
) -> None:
    """What there is, with what was there."""
    runs = [*chain(*map(earlier.runs, known)), *records(folder, RUNS)]
    latencies = [*chain(*map(earlier.latencies, known)), *records(folder, LATENCIES)]
    for ground in grounds:
        table = assemble(ground, configs, seeds, runs, latencies)
        table.save(into / f"{ground.data}.json.gz")
        print(f"{into / ground.data}.json.gz: {len(table.configs)} configurations", file=sys.stderr)


def prepared(bench_: Bench, options: argparse.Namespace) -> list[Ground]:
    """Every data set; the studies that prepare them are run where that was not done."""
    base = changed(load_spec(design.STUDY), options)
    found = []
    for data in options.data:
        spec = design.study_of(base, data)
        outcome = bench_.finished(design.shrunk_study(spec) if options.small else spec)
        found.append(Ground.open(bench_.store, data, outcome.study.name))
    return found


def spread(bench_: Bench, options: argparse.Namespace) -> None:
    """Workers as children: the same command, each with a share."""
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.search.train", *sys.argv[1:], "--shard", str(shard)],
            env=child_environment(bench_.store),
        )
        for shard in range(options.workers)
    ]
    codes = [child.wait() for child in children]
    if any(codes):
        raise SystemExit(f"workers ended with {codes}; the same command goes on")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = arguments(__doc__, seeds=design.SEEDS)
    parser.set_defaults(workers=1)
    parser.add_argument("--configs", type=int, default=300, help="the first so many of the design")
    parser.add_argument("--data", nargs="+", choices=list(design.DATA), default=list(design.DATA))
    parser.add_argument("--latency", action="store_true", help="take figures of latency, train nothing")
    parser.add_argument("--again", action="store_true", help="also of what has figures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tables", action="store_true", help="write the tables, train nothing")
    parser.add_argument("--shard", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.small:
        options.configs = min(options.configs, SMALL_CONFIGS)
    return options


def main() -> None:
    """Do what is missing, then write the tables."""
    options = parsed()
    torch.set_num_threads(1)
    with bench("search", options) as bench_:
        grounds, folder = prepared(bench_, options), bench_.folder
        into = options.out or (folder / "tables" if options.small else TABLES)
        known = [table for ground in grounds if (table := earlier.earlier(ground, into)) is not None]
        count = max([options.configs, *(max(table.numbers_C) + 1 for table in known)])
        configs = design.configurations(grounds[0].plan, count)
        assert all(design.configurations(g.plan, count) == configs for g in grounds)
        if options.latency:
            measure_all(grounds, configs, folder / LATENCIES, rounds=options.rounds, again=options.again)
        elif options.workers > 1 and options.shard is None and not options.tables:
            spread(bench_, options)
        elif not options.tables:
            shard, todo = options.shard or 0, list(units(grounds, configs, options.seeds))
            path = folder / RUNS.replace("*", str(shard))
            train_all(todo, path, known, shard=shard, shards=options.workers)
        if options.shard is None:
            write_tables(grounds, configs, options.seeds, folder, known, into)


if __name__ == "__main__":
    main()
