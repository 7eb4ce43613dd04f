"""Processor seconds of a claim, by what they go to: the client's own, and those of its Postgres processes.

    .venv/bin/python -m benchmarks.store_split [--sizes 100 1000 10000] [--samplers random tpe known_latency]

One worker that trains nothing, in a study with so many complete trials. The first claim of a process reads
the study's past; the others are the median of a few. Processor seconds, because the clock of a busy machine
says nothing. The parts overlap where one calls another, and a profiler's cost is in them, not in the claims.

Reads nothing and writes only into a folder of its own. Figures depend on the machine; nothing fails on them.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from sqlalchemy import text

from benchmarks.store_filled import make_study
from benchmarks.store_load import Dummy
from kdsearch.store.connect import Store, open_store

PARTS = {
    "sweep": ("leases.py", "sweep"),
    "budget": ("studies.py", "budget_state"),
    "take waiting": ("leases.py", "take_waiting"),
    "history": ("history.py", "read"),
    "orphans": ("asking.py", "orphans"),
    "ask": ("asking.py", "ask"),
    "insert": ("leases.py", "insert_running"),
    "tell": ("asking.py", "tell_complete"),
}
"""File and function of each."""


def server_seconds(store: Store) -> float:
    """Of all connections that are open now; Postgres runs on this host."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    with store.engine.begin() as connection:
        pids = connection.execute(text(query)).scalars().all()
    return sum(_seconds(pid) for pid in pids)


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def claim(dummy: Dummy) -> None:
    """One trial, from telling what is untold to its end."""
    lease = dummy.claim()
    assert lease is not None, "the budget is large"
    dummy.finish(lease)


def seconds_of(do: Callable[[], None], clock: Callable[[], float]) -> float:
    """What it takes by this clock."""
    began = clock()
    do()
    return clock() - began


def parts_of(dummy: Dummy) -> dict[str, float]:
    """Of one claim, by a profiler that counts processor time."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(claim, dummy)
    found = {
        (Path(file).name, function): times[3]
        for (file, _, function), times in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    }
    return {name: found.get(place, 0.0) for name, place in PARTS.items()}


def row(store: Store, size: int, sampler: str, claims: int) -> str:
    """One line of the table."""
    name = f"split-{size}-{sampler}"
    make_study(store, name, size, sampler=sampler)
    dummy = Dummy(store, name)
    first = seconds_of(lambda: claim(dummy), time.process_time)
    before = server_seconds(store)
    further = [seconds_of(lambda: claim(dummy), time.process_time) for _ in range(claims)]
    server = (server_seconds(store) - before) / claims
    figures = [first, statistics.median(further), server, *parts_of(dummy).values()]
    return f"| {size} | {sampler} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |"


def main() -> None:
    """Fill, claim, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe", "known_latency"])
    parser.add_argument("--claims", type=int, default=5)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    columns = ["trials before", "sampler", "first claim", "claim", "of Postgres", *PARTS]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    with (
        tempfile.TemporaryDirectory(prefix="kdsearch-split-") as folder,
        open_store(None, None, home=Path(folder)) as store,
    ):
        for size in options.sizes:
            for sampler in options.samplers:
                print(row(store, size, sampler, options.claims), flush=True)


if __name__ == "__main__":
    main()
