"""How long one query takes: real texts with their real lengths, one after another, on a quiet host.

The shape of MLPerf's single-stream scenario: the next query starts when the last one has ended, and p90 is
the figure. Tokenisation is timed apart.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import fmean
from typing import TypeAlias

import numpy as np
from torch import nn

from kdsearch.core.records import Latency
from kdsearch.core.spec import LatencySpec
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.profile import hardware_profile
from kdsearch.measure.runtimes import RUNTIMES
from kdsearch.measure.runtimes.base import IntArray, Prepared, Runner

Encode: TypeAlias = Callable[[list[str]], tuple[IntArray, IntArray]]
"""Texts -> (input ids (B, T), attention mask (B, T)), padded to the longest of them."""
LOCK_TIMEOUT_S = 30.0
TRIES = 3
LONGEST_MS, LONGEST_SHARE = 1000.0, 50.0
"""A query of more than a second that takes fifty times as long as the usual one did not run undisturbed."""
QUANTILES = 101
"""From the fastest query to the slowest: enough for a histogram, whatever the number of queries."""
MOST_QUERIES = 1000
"""Distinct queries; they are repeated in the same order for as long as the protocol asks."""


@dataclass(frozen=True)
class _Times:
    """Milliseconds of each query and of each tokenisation."""

    queries: list[float]
    tokenise: list[float]
    seconds: float
    longest_ms: float
    """From the end of one query to the end of the next."""

    @property
    def undisturbed(self) -> bool:
        """Whether the queries explain the time that they took: a process that was stopped for a while, and
        whatever trained on this host meanwhile, shows as one query, or a gap between two, of seconds.
        """
        return self.longest_ms <= max(LONGEST_MS, LONGEST_SHARE * percentile(self.queries, 0.50))


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank: the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """In equal steps from the smallest value to the largest, to a thousandth of themselves."""
    return tuple(float(f"{found:.4g}") for found in np.quantile(values, np.linspace(0, 1, QUANTILES)))


def query_texts(texts: Sequence[str], batch_size: int, seed: int) -> list[list[str]]:
    """The texts of each query, in an order fixed by the seed; few texts are used again to fill a batch."""
    if not texts:
        raise ValueError("no texts to measure latency with")
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = [texts[i] for i in order]
    count = max(1, min(MOST_QUERIES, len(texts) // batch_size))
    stream = cycle(shuffled)
    return [list(islice(stream, batch_size)) for _ in range(count)]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _milliseconds(since_ns: int) -> float:
    return (time.perf_counter_ns() - since_ns) / 1e6


def _encode_all(
    encode: Encode, queries: list[list[str]]
) -> tuple[list[tuple[IntArray, IntArray]], list[float]]:
    encoded, times = [], []
    for texts in queries:
        start = time.perf_counter_ns()
        encoded.append(encode(texts))
        times.append(_milliseconds(start))
    return encoded, times


def _time(
    run: Runner, encode: Encode, queries: list[list[str]], spec: LatencySpec, interrupt: Callable[[], None]
) -> _Times:
    encoded, tokenise = _encode_all(encode, queries)
    for query in islice(cycle(encoded), spec.warmup):
        interrupt()
        run(*query)
    times: list[float] = []
    longest_ms = 0.0
    with _no_garbage_collection():
        began = ended = time.perf_counter_ns()
        for query in cycle(encoded):
            interrupt()
            start = time.perf_counter_ns()
            run(*query)
            times.append(_milliseconds(start))
            longest_ms = max(longest_ms, _milliseconds(ended))
            ended = time.perf_counter_ns()
            if len(times) >= spec.min_queries and _milliseconds(began) >= spec.min_seconds * 1e3:
                break
        seconds = _milliseconds(began) / 1e3
    return _Times(times, tokenise, seconds, longest_ms)


def _time_alone(
    run: Runner, encode: Encode, queries: list[list[str]], spec: LatencySpec, lock: HostLock
) -> tuple[_Times, bool]:
    """Times, and whether the host was ours alone all the while; otherwise only when it could not be had."""
    for remaining in range(TRIES - 1, -1, -1):
        with lock.measuring(LOCK_TIMEOUT_S) as alone:
            if alone or not remaining:
                times = _time(run, encode, queries, spec, lock.interrupt)
                quiet = alone and times.undisturbed
                if quiet or not remaining:
                    return times, quiet
    raise AssertionError("the last try measures in any case")


def measure_latency(
    module: nn.Module,
    texts: Sequence[str],
    encode: Encode,
    spec: LatencySpec,
    lock: HostLock,
    *,
    seed: int = 0,
) -> Latency:
    """Convert the module, then time it under the host lock.

    `noisy` says that the lock was not to be had, or that something stopped this process meanwhile.
    """
    prepared = RUNTIMES[spec.runtime].prepare(module, spec)
    return measure_prepared(prepared, texts, encode, spec, lock, seed=seed)


def measure_prepared(
    prepared: Prepared,
    texts: Sequence[str],
    encode: Encode,
    spec: LatencySpec,
    lock: HostLock,
    *,
    seed: int = 0,
) -> Latency:
    """Time what answers queries already, as `measure_latency` does."""
    queries = query_texts(texts, spec.batch_size, seed)
    times, alone = _time_alone(prepared.run, encode, queries, spec, lock)
    return Latency(
        p50_ms=percentile(times.queries, 0.50),
        p90_ms=percentile(times.queries, 0.90),
        p99_ms=percentile(times.queries, 0.99),
        mean_ms=fmean(times.queries),
        num_queries=len(times.queries),
        seconds=times.seconds,
        size_mb=prepared.size_mb,
        num_params=prepared.num_params,
        tokenize_p50_ms=percentile(times.tokenise, 0.50),
        noisy=not alone,
        profile=hardware_profile(spec),
        quantiles_ms=quantiles(times.queries),
    )
