"""A worker process with a fault: ``faulty_worker.py STORAGE ARTIFACTS HOME LOCKS STUDY FAULT``.

It says ``struck`` once the fault has struck. Latency is a made-up figure, so that nothing is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from kdsearch.cli.worker import StopSignals, leave_question, stop_question
from kdsearch.core.records import Latency
from kdsearch.measure.profile import hardware_profile
from kdsearch.store.connect import Store, open_store
from kdsearch.worker import measuring, watchdog
from kdsearch.worker import trial as trial_module
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.loop import work


def figure(module: Any, texts: Any, encode: Any, spec: Any, lock: Any, *, seed: int) -> Latency:
    return Latency(
        p50_ms=1.0,
        p90_ms=1.0,
        p99_ms=1.0,
        mean_ms=1.0,
        num_queries=10,
        seconds=1.0,
        size_mb=1.0,
        num_params=10,
        tokenize_p50_ms=0.1,
        noisy=False,
        profile=hardware_profile(spec),
    )


def struck() -> None:
    print("struck", flush=True)


def measuring_gets_stuck(options: WorkerOptions, *, hangs: bool) -> None:
    """Measuring takes 300 s; signals are heard meanwhile, nobody asks what they said."""

    def stuck_in_a_library(*args: Any, **kwargs: Any) -> None:
        if hangs:  # only now: on a busy machine starting takes longer
            object.__setattr__(options, "hang_s", 1.5)
        struck()
        end = time.monotonic() + 300
        while time.monotonic() < end:
            time.sleep(0.1)

    measuring.measure_latency = stuck_in_a_library


def stuck_in_the_database(store: Store) -> None:
    """Training is a statement that takes 300 s, inside libpq: no signal is heard meanwhile."""

    def stuck(*args: Any, **kwargs: Any) -> None:
        with store.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            struck()
            connection.execute(text("SELECT pg_sleep(300)"))

    trial_module.fit = stuck


def slow() -> None:
    """After its first epoch a training waits until it is to stop."""
    train = trial_module.fit

    def waits(*args: Any, on_epoch: Any, should_stop: Any, **kwargs: Any) -> Any:
        def finished(report: Any, state: bytes) -> None:
            on_epoch(report, state)
            struck()
            while not should_stop():
                time.sleep(0.02)

        return train(*args, on_epoch=finished, should_stop=should_stop, **kwargs)

    trial_module.fit = waits


def main() -> int:
    storage, artifacts, home, locks, study, fault = sys.argv[1:]
    measuring.measure_latency = figure
    watchdog.LEAVE_S = 1.0
    signals = StopSignals()
    signals.listen()
    options = WorkerOptions(
        lock_folder=Path(locks), poll_s=0.05, lease_s=6.0, ended_by=leave_question(signals, None)
    )
    with open_store(storage, artifacts, home=Path(home)) as store:
        faults: dict[str, Callable[[], None]] = {
            "hang": lambda: measuring_gets_stuck(options, hangs=True),
            "library": lambda: measuring_gets_stuck(options, hangs=False),
            "database": lambda: stuck_in_the_database(store),
            "slow": slow,
        }
        faults[fault]()
        work(store, study, options=options, should_stop=stop_question(signals, None))
    return signals.exit_code


if __name__ == "__main__":
    sys.exit(main())
