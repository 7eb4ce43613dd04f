"""A teacher's answers to whole pools: each text asked once for all studies, kept shard by shard, audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdsearch.data.tokens import TokenPool
from kdsearch.store import cache
from kdsearch.teachers import signals, source
from kdsearch.teachers.signals import Shard
from kdsearch.teachers.source import TeacherModule
from kdsearch.worker.preparing import Preparing

KIND = "signals"
ROWS_PER_SHARD = 2048
Pools = Mapping[str, TokenPool]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Labeller:
    """One frozen teacher. Whoever takes over from a dead holder goes on from the last shard."""

    preparing: Preparing
    module: TeacherModule
    folder: Path
    """Whose content names the answers."""
    name: str = "teacher"
    """What it is called where progress is told."""

    def logits(self, pools: Pools, *, accuracy: float | None = None) -> Arrays:
        """Float32 logits (N, C) of every pool; on validation they must have this accuracy."""
        return self._answers(pools, (), accuracy)

    def hidden(self, pools: Pools, layers: Sequence[int]) -> Arrays:
        """Float16 mean hidden vectors (N, L, H) of every pool."""
        return self._answers(pools, tuple(layers), None)

    def _answers(self, pools: Pools, layers: tuple[int, ...], accuracy: float | None) -> Arrays:
        key = signals.signals_key(
            source.fingerprint(self.folder),
            source.tokenizer_fingerprint(self.folder),
            self.preparing.context.spec.teacher.max_length,
            layers=layers,
            order=self.module.order_C.tolist(),  # studies may name its classes, and order labels, otherwise
        )
        found = {name: self._of_pool(pool, key, layers) for name, pool in pools.items()}
        with self.preparing.training() as breathe:
            for name, pool in pools.items():
                signals.audit(
                    self.module,
                    pool,
                    found[name],
                    pad_id=self.module.pad_id,
                    device=self.preparing.device,
                    breathe=breathe,
                    expected_accuracy=accuracy if name == "validation" else None,
                    layers=layers,
                )
        return found

    def _of_pool(self, pool: TokenPool, key: str, layers: tuple[int, ...]) -> npt.NDArray[Any]:
        shards = self._kept(key)
        values, missing = signals.lookup(shards, pool)
        for start in range(0, len(missing), ROWS_PER_SHARD):
            done = len(pool) - len(missing) + start
            self.preparing.say(f"{self.name} labels {pool.name}: {done} of {len(pool)} texts")
            rows = missing[start : start + ROWS_PER_SHARD]
            with self.preparing.training() as breathe:
                shard = signals.compute_shard(
                    self.module,
                    pool,
                    rows,
                    pad_id=self.module.pad_id,
                    device=self.preparing.device,
                    breathe=breathe,
                    layers=layers,
                )
            self._keep(shard, key)
            shards.append(shard)
        if len(missing):
            values, _ = signals.lookup(shards, pool)
        return values

    def _kept(self, key: str) -> list[Shard]:
        store = self.preparing.context.store
        return [
            Shard.load(store.blobs.open(entry.sha256))
            for entry in cache.find(store.engine, KIND, key)
            if store.blobs.exists(entry.sha256)  # it may be in another study's artifact store alone
        ]

    def _keep(self, shard: Shard, key: str) -> None:
        store, path = self.preparing.context.store, self.preparing.folder / "shard.npz"
        shard.save(path)
        cache.add(store.engine, KIND, key, store.blobs.put(path), {})


def stacked(answers: Sequence[Arrays]) -> Arrays:
    """Several teachers' logits of the same pools side by side: (N, K, C)."""
    return {name: np.stack([one[name] for one in answers], axis=1) for name in answers[0]}
