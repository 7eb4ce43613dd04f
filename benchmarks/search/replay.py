"""Replays searches on a table of trained configurations: which finds how much for how much training?

    .venv/bin/python -m benchmarks.search.replay --seeds 100 --seeds-of gp=20 ablation=30 control=30 \\
        --processes 2

One line per finished replay goes to the journal, so that the same command goes on where it was cut off.
A journal holds what the code of its day gave: for changed samplers or pruners take another folder.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.search.journal import Journal, records
from benchmarks.search.methods import METHODS, replay, truth_of
from benchmarks.search.regret import Line, line_of
from benchmarks.search.report import Played, write_report
from benchmarks.search.simulator import Clock, Setting
from benchmarks.search.snapping import Snapper
from benchmarks.search.table import TABLES, load
from benchmarks.search.truth import Truth, floor_of
from kdsearch.core.spec import RungsSpec
from kdsearch.search.pruners.base import Ladder

TRAININGS = 60
JOURNAL = Path(".kdsearch/replays")
OUT = Path("docs/results/search.md")


class Task(NamedTuple):
    """One replay."""

    method: str
    workers: int
    seed: int


@dataclass(frozen=True)
class Stage:
    """A table, ready to be played."""

    truth: Truth
    snapper: Snapper
    trainings: int
    clock: Clock

    @classmethod
    def open(cls, path: Path, trainings: int, clock: Clock) -> Stage:
        """From its file."""
        table = load(path)
        return cls(Truth(table, floor_of(table)), Snapper(table.configs, table.plan), trainings, clock)

    @property
    def budget_epochs(self) -> int:
        """Of one replay."""
        return self.trainings * self.truth.table.num_epochs

    def setting(self, workers: int, seed: int) -> Setting:
        """Of one replay."""
        return Setting(
            truth=self.truth,
            workers=workers,
            budget_epochs=self.budget_epochs,
            ladder=Ladder.of(RungsSpec(), epochs=self.truth.table.num_epochs),
            seed=seed,
            clock=self.clock,
        )

    def play(self, task: Task) -> Line:
        """One replay."""
        method = METHODS[task.method]
        truth = truth_of(method, self.truth, task.seed)
        setting = replace(self.setting(task.workers, task.seed), truth=truth)
        began = time.process_time()
        story = replay(method, setting, self.snapper)
        took_s = time.process_time() - began
        return line_of(story, truth, **task._asdict(), budget_epochs=setting.budget_epochs, took_s=took_s)


_stage: list[Stage] = []
"""Of this process, opened once."""


def _open(path: Path, trainings: int, clock: Clock) -> None:
    _stage[:] = [Stage.open(path, trainings, clock)]


def _play(task: Task) -> Line:
    return _stage[0].play(task)


# ---------------------------------------------------------------- all of them


def journal_of(folder: Path, table: Path, trainings: int, clock: Clock) -> Path:
    """Another file for another table, budget or clock."""
    digest = hashlib.sha256(table.read_bytes()).hexdigest()[:12]
    return folder / f"{table.name.split('.')[0]}-{digest}-{trainings}-{clock}.jsonl"


def known_lines(journal: Path) -> list[Line]:
    """What was played already."""
    return [Line.from_json(record) for record in records(journal.parent, journal.name)]


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Seed by seed, so that a journal cut off compares all methods on equally many seeds."""
    for seed in range(options.seeds):
        for workers in options.workers:
            for name in options.methods:
                if seed < num_seeds(name, workers, options):
                    yield Task(name, workers, seed)


def num_seeds(method: str, workers: int, options: argparse.Namespace) -> int:
    """How many replays a method has: what `--seeds-of` says of it, else of its role, else `--seeds`."""
    said = {name: int(count) for name, count in (pair.split("=") for pair in options.seeds_of)}
    role = METHODS[method].role
    names = (f"{method}@{workers}", method, f"{role}@{workers}", role)
    return next((said[name] for name in names if name in said), int(options.seeds))


def play_all(table: Path, options: argparse.Namespace) -> list[Line]:
    """Every replay that is not in the journal yet; all that are there."""
    path = journal_of(options.journal, table, options.trainings, options.clock)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = known_lines(path)
    done = {Task(one.method, one.workers, one.seed) for one in known}
    wanted = [task for task in tasks(options) if task not in done]
    with Journal.opened(path) as journal:
        for count, line in enumerate(_played(table, wanted, options), 1):
            journal.add(line.to_json())
            known.append(line)
            if count % 50 == 0 or count == len(wanted):
                print(f"{table.name}: {count} of {len(wanted)} replays", flush=True)
    return known


def _played(table: Path, wanted: Sequence[Task], options: argparse.Namespace) -> Iterator[Line]:
    if not wanted:
        return
    given = (table, options.trainings, options.clock)
    if options.processes == 1:
        _open(*given)
        yield from map(_play, wanted)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(options.processes, context, initializer=_open, initargs=given) as pool:
        for future in as_completed([pool.submit(_play, task) for task in wanted]):
            yield future.result()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description="Replay searches on a table.")
    parser.add_argument("--table", type=Path, nargs="+", default=sorted(TABLES.glob("*.json.gz")))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument(
        "--seeds-of",
        nargs="*",
        default=[],
        metavar="METHOD=COUNT",
        help="fewer for some, or for a role; METHOD@WORKERS=COUNT for so many workers",
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument(
        "--trainings", type=int, default=TRAININGS, help="budget of a search, in whole trainings"
    )
    parser.add_argument("--clock", choices=("seconds", "rows"), default="seconds")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--journal", type=Path, default=JOURNAL, help="folder")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--plots", type=Path, default=None, help="folder; beside the report unless given")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Play, then report."""
    options = arguments(argv)
    played = [Played(load(path), play_all(path, options)) for path in options.table]
    said = shlex.join(sys.argv[1:] if argv is None else argv)
    command = f".venv/bin/python -m benchmarks.search.replay {said}".strip()
    write_report(played, options.out, options.plots or options.out.with_suffix(""), command)


if __name__ == "__main__":
    main()
