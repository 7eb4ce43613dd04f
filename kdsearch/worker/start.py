"""The teacher before fine-tuning: as given, or built from its configuration, and pretrained where asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdsearch.core.blobs import get_tree, has_tree, put_tree
from kdsearch.core.canonical import sha256_of
from kdsearch.core.specteacher import PretrainSpec
from kdsearch.data.dataset import Dataset
from kdsearch.data.tokens import TokenPool
from kdsearch.store import cache
from kdsearch.teachers import build, pretrain
from kdsearch.teachers.pretrain import Between, PretrainReport
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.unfinished import Unfinished, Watch

KIND = "pretrained"
READ = ("train", "unlabelled")
"""Pools that a built teacher takes its word pieces from and is pretrained on: texts as people write them."""


@dataclass(frozen=True)
class Start:
    """What fine-tuning and joint schemes start from."""

    tree: str
    folder: Path
    seconds: float
    """What pretraining took; 0 without."""


def source_folder(context: WorkerContext, dataset: Dataset, into: Path) -> Path:
    """The teacher as given, or built from its configuration; not pretrained yet."""
    if context.inputs.teacher is not None:
        return get_tree(context.store.blobs, context.inputs.teacher, into)
    spec = context.spec.teacher
    if spec.build is None:
        raise AssertionError("a study without a teacher cannot be created")
    return build.build_teacher(
        spec.build,
        [text for name in READ if name in dataset.pools for text in dataset.pools[name].texts],
        dataset.labels,
        max_length=spec.max_length,
        seed=context.spec.training.seed,
        folder=into,
    )


def prepare_start(
    context: WorkerContext, pools: Mapping[str, TokenPool], folder: Path, watch: Watch
) -> Start:
    """What the study's teacher starts from; ``folder`` is what `source_folder` gave. Raises Stopped."""
    blobs, spec = context.store.blobs, context.spec.teacher.pretrain
    tree = context.inputs.teacher or put_tree(blobs, folder)
    if spec is None:
        return Start(tree, folder, 0.0)
    read = [pools[name] for name in READ if name in pools]
    key = _key(context, tree, spec, read)
    found = _cached(context, key, folder)
    if found is not None:
        return found
    pretraining = _Pretraining(context, key, watch)
    start = pretraining.run(spec, read, folder)
    cache.add(context.store.engine, KIND, key, start.tree, {"seconds": start.seconds})
    pretraining.checkpoints.drop()  # only now: whoever takes over from a death before this needs it
    return start


def _key(context: WorkerContext, tree: str, spec: PretrainSpec, read: list[TokenPool]) -> str:
    texts = [hashlib.sha256(pool.keys.tobytes()).hexdigest() for pool in read]
    return sha256_of(
        {
            "teacher": tree,
            "pretrain": spec.model_dump(mode="json"),
            "texts": texts,
            "max_length": context.spec.teacher.max_length,
            "seed": context.spec.training.seed,
        }
    )


def _cached(context: WorkerContext, key: str, folder: Path) -> Start | None:
    blobs = context.store.blobs
    for entry in cache.find(context.store.engine, KIND, key):
        if has_tree(blobs, entry.sha256):
            laid_out = get_tree(blobs, entry.sha256, _beside(folder))
            return Start(entry.sha256, laid_out, entry.meta["seconds"])
    return None


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-pretrained")


class _Pretraining:
    """One pretraining, and what is stored after each of its epochs."""

    def __init__(self, context: WorkerContext, key: str, watch: Watch) -> None:
        self.context, self.key, self.watch = context, key, watch
        self.checkpoints = Checkpoints(context.store.blobs, f"study {context.study.id} pretraining")

    def run(self, spec: PretrainSpec, read: list[TokenPool], folder: Path) -> Start:
        into = _beside(folder)
        seconds = pretrain.pretrain(
            folder,
            into,
            spec,
            read,
            seed=self.context.spec.training.seed,
            device=self.context.options.device,
            on_epoch=lambda report, state: self._finished_epoch(report, state, spec.epochs),
            resume=self._resume(),
            breathe=self.watch.breathe,
            should_stop=self.watch.should_stop,
            between=Between(every_s=self.context.options.checkpoint_s, put=self._within_epoch),
        )
        if seconds is None:
            raise Stopped
        return Start(put_tree(self.context.store.blobs, into), into, seconds)

    def _resume(self) -> bytes | None:
        state = Unfinished.find(self.context.store.blobs, self.watch.unfinished, recipe=self.key)
        if state is None:
            return None
        self.checkpoints.newest = state.checkpoint
        return self.checkpoints.read()

    def _finished_epoch(self, report: PretrainReport, state: bytes, epochs: int) -> None:
        self._keep(f"epoch {report.epoch} of {epochs}, loss {report.loss:.3f}", state)

    def _within_epoch(self, share: float, state: bytes) -> None:
        self._keep(f"{share:.0%} of the rows seen", state)

    def _keep(self, how_far: str, state: bytes) -> None:
        checkpoint = self.checkpoints.put(state)
        unfinished = Unfinished(recipe=self.key, checkpoint=checkpoint)
        self.watch.keep(f"pretraining the teacher: {how_far}", unfinished.put(self.context.store.blobs))
        self.checkpoints.supersede(checkpoint)
