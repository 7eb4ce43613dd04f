"""Many workers on one Postgres: what a claim takes, how many trials a second come and go, how soon one joins.

    .venv/bin/python -m benchmarks.store_load [--workers 32] [--seconds 30] [--sizes 100 1000] [--sampler tpe]

Workers are processes that claim, report two epochs and finish, without training anything: the store, the
turns and Optuna's asking and telling are all there is. They are forked, so that the minutes in which 32
processes would import torch on a small machine are not in the figures. Each size is a study of its own that
already has so many complete trials, written by SQL. The last columns are of one more worker, a process of its
own that comes when the others have gone, and have left one proposal ready.

Reads nothing and writes only into a folder of its own. Figures depend on the machine; nothing fails on them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import optuna
from sqlalchemy import text

from benchmarks.store_filled import context_of, figures, make_study
from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import LeaseLostError
from kdsearch.core.records import EpochReport
from kdsearch.search.asking import Search
from kdsearch.store import leases, telling
from kdsearch.store.connect import Store, open_store
from kdsearch.store.leases import Lease
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.worker.claim import Claims

if TYPE_CHECKING:
    from kdsearch.worker.material import Material


@dataclass
class Seen:
    """What one worker saw."""

    joined_s: float = 0.0
    """From nothing but a URL to the first claim."""
    claims_s: list[float] = field(default_factory=list)
    """All claims but the first."""
    cpu_s: list[float] = field(default_factory=list)
    """Of the worker's own process, in each of them: says more than the clock where a machine is busy."""
    worked_s: float = 0.0
    """Since it joined."""
    finished: int = 0
    """Without the first, which is joining."""
    lost: int = 0
    """Leases that ran out, for nothing renews them here: the machine was too busy."""
    errors: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- a worker that trains nothing


class Dummy:
    """Claims and finishes, as the worker's loop does."""

    def __init__(self, store: Store, name: str) -> None:
        self.context = context_of(store, name)
        self.engine, self.study_id = store.engine, self.context.study.id
        material = SimpleNamespace(
            context=self.context,
            quality_floor=0.5,
            figures=SimpleNamespace(question=lambda: lambda config: figures(config)[0].p90_ms),
            architecture=lambda config: sha256_of([config.student, dict(config.student_params)]),
        )
        self.search = Search.open(optuna_storage(store), name, self.context.plan)
        self.claims = Claims(cast("Material", material), self.search, can_measure=True)

    def claim(self) -> Lease | None:
        """As the loop claims: what others finished is told first."""
        for row in telling.untold(self.engine, self.study_id):
            assert row.quality is not None and row.latency is not None, "this load knows no failures"
            self.search.tell_complete(
                row.number, quality=row.quality, latency_ms=row.latency.p90_ms, constraints=row.constraints
            )
            telling.mark_told(self.engine, self.study_id, row.number)
        claim = self.claims.take()
        return claim if isinstance(claim, Lease) else None

    def finish(self, lease: Lease) -> None:
        """Latency, two epochs and the result, at once."""
        latency, result = figures(lease.config)
        leases.record_latency(self.engine, lease, latency)
        for number in (1, 2):
            report = EpochReport(
                stage="none",
                epoch=number,
                rows_seen=100 * number,
                losses={"total": 1.0},
                scores=result.scores,
                seconds=0.0,
            )
            leases.record_epoch(self.engine, lease, report, "c" * 64)
        leases.finish_complete(self.engine, lease, result, {})


def worker(url: str, home: Path, name: str, seconds: float, out: Queue[Seen]) -> None:
    """One worker, until the time is over; what began is finished."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seen, began = Seen(), time.perf_counter()
    try:
        with open_store(url, None, home=home) as store:
            dummy = Dummy(store, name)
            while True:
                started, cpu = time.perf_counter(), time.process_time()
                lease = dummy.claim()
                now = time.perf_counter()
                if seen.joined_s:
                    seen.claims_s.append(now - started)
                    seen.cpu_s.append(time.process_time() - cpu)
                else:
                    seen.joined_s = now - began
                try:
                    if lease is not None:
                        if seen.claims_s:
                            dummy.claims.leave_one_ready()
                        dummy.finish(lease)
                        seen.finished += bool(seen.claims_s)
                except LeaseLostError:
                    seen.lost += 1
                seen.worked_s = time.perf_counter() - began - seen.joined_s
                if seen.worked_s > seconds:
                    break
    except Exception as error:  # noqa: BLE001 - to be counted, whatever it is
        seen.errors.append(f"{type(error).__name__}: {error}"[:300])
    out.put(seen)


# ---------------------------------------------------------------- measuring


def load(store: Store, name: str, *, workers: int, seconds: float) -> tuple[list[Seen], int]:
    """What the workers saw, and how many deadlocks Postgres counted."""
    fork = multiprocessing.get_context("fork")
    out: Queue[Seen] = fork.Queue()
    before = _deadlocks(store)
    store.engine.dispose(close=False)
    crowd = [
        fork.Process(target=worker, args=(store.url, store.home, name, seconds, out)) for _ in range(workers)
    ]
    for each in crowd:
        each.start()
    seen = [out.get() for _ in crowd]
    for each in crowd:
        each.join()
    return seen, _deadlocks(store) - before


def _deadlocks(store: Store) -> int:
    with store.engine.begin() as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(connection.execute(text(query)).scalar_one())


def join(store: Store, name: str) -> dict[str, float]:
    """Seconds until a fresh process has its first trial: the whole, and what of it is importing."""
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.store_load", "--join", store.url, str(store.home), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"imported_s": found["imported"] - began, "first_claim_s": found["claimed"] - found["imported"]}


def join_here(url: str, home: Path, name: str) -> None:
    """Claim one trial as a worker that has just been started, and say when."""
    imported = time.time()
    with open_store(url, None, home=home) as store:
        dummy = Dummy(store, name)
        lease = dummy.claim()
        claimed = time.time()
        if lease is not None:
            dummy.finish(lease)
    print(json.dumps({"imported": imported, "claimed": claimed, "has": lease is not None}))


def row(size: int, seen: Sequence[Seen], deadlocks: int, joined: dict[str, float]) -> str:
    """One line of the table."""
    claims = np.array([s for each in seen for s in each.claims_s] or [float("nan")])
    finished, errors = sum(each.finished for each in seen), [e for each in seen for e in each.errors]
    rate = sum(each.finished / each.worked_s for each in seen if each.worked_s)
    p50, p95 = np.percentile(claims, [50, 95])
    cpu = np.median([s for each in seen for s in each.cpu_s] or [float("nan")])
    lost = sum(each.lost for each in seen)
    cold = np.median([each.joined_s for each in seen])
    for error in sorted(set(errors)):
        print(f"  error: {error}", file=sys.stderr)
    return (
        f"| {size} | {len(seen)} | {finished} | {rate:.2f} | {p50:.2f} | {p95:.2f} | {cpu:.3f} | {cold:.1f} "
        f"| {deadlocks} | {len(errors)} | {lost} | {joined['first_claim_s']:.2f} "
        f"| {joined['imported_s']:.1f} |"
    )


def main() -> None:
    """Fill, load, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--join", nargs=3, metavar=("URL", "HOME", "STUDY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.join:
        join_here(options.join[0], Path(options.join[1]), options.join[2])
        return
    print(
        "| trials before | workers | finished | trials/s | claim p50 s | p95 s | its CPU s "
        "| first claim of the crowd s | deadlocks | errors | leases lost | joining: first claim s "
        "| its imports s |"
    )
    print("|" + "---|" * 13)
    with (
        tempfile.TemporaryDirectory(prefix="kdsearch-load-") as folder,
        open_store(None, None, home=Path(folder)) as store,
    ):
        for size in options.sizes:
            name = f"load-{size}"
            make_study(store, name, size, sampler=options.sampler)
            found = load(store, name, workers=options.workers, seconds=options.seconds)
            print(row(size, *found, join(store, name)), flush=True)


if __name__ == "__main__":
    main()
