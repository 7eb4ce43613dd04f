"""Latency of a student or teacher: from the cache, or measured under the host lock and cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from kdsearch.core.canonical import sha256_of
from kdsearch.core.records import HardwareProfile, Latency, TrialConfig
from kdsearch.core.spec import LatencySpec
from kdsearch.data.prepared import Prepared
from kdsearch.measure.latency import measure_latency
from kdsearch.measure.profile import hardware_profile
from kdsearch.store import cache
from kdsearch.worker.context import WorkerContext

Encode = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
KIND = "latency"
NUM_TEXTS = 1000


def figure_key(
    architecture: str,
    profile: HardwareProfile,
    texts: Sequence[str],
    *,
    max_length: int,
    tokenizer: str,
    protocol: LatencySpec,
) -> str:
    """A figure belongs to an architecture, a hardware profile, the queries and how many were timed."""
    queries = [list(texts[:NUM_TEXTS]), tokenizer, max_length]
    effort = [protocol.warmup, protocol.min_queries, protocol.min_seconds]
    return sha256_of([architecture, profile.key, queries, effort])


def encoder(tokenizer: object, max_length: int) -> Encode:
    """Texts to (input ids, attention mask), both int64 of shape (rows, longest)."""

    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        found = tokenizer(  # type: ignore[operator]
            texts, truncation=True, max_length=max_length, padding=True, return_tensors="np"
        )
        return found["input_ids"].astype(np.int64), found["attention_mask"].astype(np.int64)

    return encode


def cached_figure(context: WorkerContext, key: str) -> Latency | None:
    """A figure taken earlier, in this study or another."""
    entries = cache.find(context.store.engine, KIND, key)
    return Latency.from_json(entries[0].meta) if entries else None


class Figures:
    """What is known of latency without measuring, for whoever only considers a configuration.

    A figure that is there stays as it is, so that it is read once; one that is not may come at any time.
    """

    def __init__(self, context: WorkerContext, key: Callable[[TrialConfig], str]) -> None:
        self._context, self._key = context, key
        self._found: dict[str, float] = {}

    def question(self) -> Callable[[TrialConfig], float | None]:
        """What is asked of each candidate of one question: its latency under the study's objective, or None.

        Answers of one question agree with each other; a figure taken meanwhile is known to the next.
        """
        missing: set[str] = set()

        def latency_ms(config: TrialConfig) -> float | None:
            key = self._key(config)
            if key not in self._found and key not in missing:
                figure = cached_figure(self._context, key)
                if figure is None:
                    missing.add(key)
                else:
                    self._found[key] = figure.at(self._context.spec.objectives.latency)
            return self._found.get(key)

        return latency_ms


def can_measure(context: WorkerContext, prepared: Prepared) -> bool:
    """Whether this machine is the study's measuring profile; a worker elsewhere only trains."""
    return hardware_profile(context.spec.latency).key == prepared.profile.key


def measure(
    context: WorkerContext, module: nn.Module, *, key: str, texts: Sequence[str], encode: Encode
) -> Latency:
    """The cached figure, or a new one taken while nothing trains on this host."""
    found = cached_figure(context, key)
    if found is not None:
        return found
    figure = measure_latency(
        module.eval(), texts[:NUM_TEXTS], encode, context.spec.latency, context.lock, seed=0
    )
    if not figure.noisy:
        cache.add(context.store.engine, KIND, key, key, figure.to_json())
        return cached_figure(context, key) or figure  # whoever was first: equal architectures, equal figures
    return figure
