"""The teachers of a study: used as they are, or fine-tuned once and shared by all studies that ask the same.

Of a fine-tuning both the anchor of the lowest validation loss and the one of the highest accuracy are kept;
the study file selects which of them teaches. A historical teacher is the same on a slice of the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdsearch.core.blobs import has_tree
from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import DataError
from kdsearch.core.specteacher import FinetuneSpec, HistoricalSpec, Slice
from kdsearch.data.dataset import Dataset
from kdsearch.data.tokens import TokenPool
from kdsearch.store import cache
from kdsearch.store.cache import CacheEntry
from kdsearch.teachers.signals import take
from kdsearch.worker.context import WorkerContext
from kdsearch.worker.start import READ, Start, prepare_start, source_folder
from kdsearch.worker.tuning import Tuned, Tuning
from kdsearch.worker.unfinished import Anchor, Watch

__all__ = ["TeacherTrees", "prepare_historical", "prepare_teacher", "recipe_key", "source_folder"]

KIND = "teacher"
Pools = Mapping[str, TokenPool]


@dataclass(frozen=True, kw_only=True)
class TeacherTrees:
    """Where the teacher's folders are stored."""

    final: str
    """The one that teaches."""
    anchors: tuple[str, ...]
    """In order of training, at equal steps; the last of them is the one of the lowest validation loss."""
    accuracy: float | None
    """Of `final` on the validation pool, as fine-tuning measured it; None for a teacher used as it is."""
    start: str
    """Before fine-tuning, after any pretraining; the classifier itself where it is used as it is."""
    best: Mapping[str, str] = field(default_factory=dict)
    """By ``loss`` and by ``accuracy``; empty for a teacher used as it is."""
    seconds: float | None = None
    """What training it took, any pretraining included; None where nobody wrote it down."""


def recipe_key(context: WorkerContext, dataset: Dataset, part: Slice | None = None) -> str:
    """Two studies whose key is equal share a fine-tuned teacher, and so do teachers of equal slices.

    What is selected in the end is no part of it: all there is to select from is kept.
    """
    spec = context.spec
    key: dict[str, Any] = {
        "teacher": context.inputs.teacher,
        "recipe": spec.teacher.model_dump(
            mode="json",
            exclude={"model": True, "logits": True, "joint": True, "finetune": {"select"}},
            exclude_defaults=True,
        ),
        "labels": dataset.labels,
        "data": dataset.fingerprint,
        "seed": spec.training.seed,
        "objective": spec.objectives.quality,
    }
    read = [name for name in READ if name in dataset.pools]
    if spec.teacher.build is not None and len(read) > 1:
        key["read"] = read  # word pieces were once those of the labelled texts alone
    if part is not None:
        key["slice"] = list(part)
    return sha256_of(key)


def prepare_teacher(
    context: WorkerContext,
    dataset: Dataset,
    pools: Pools,
    folder: Path,
    *,
    unfinished: str | None,
    keep: Callable[[str, str], None],
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
    mention: Callable[[str], None] = lambda text: None,
) -> TeacherTrees:
    """The classifier that teaches, stored.

    ``folder`` is the source folder, ``unfinished`` the checkpoint a dead holder left, and
    ``keep(progress, checkpoint)`` records how far this one is. Raises Stopped.
    """
    given = context.inputs.teacher
    if given is not None and context.inputs.teacher_classifies:
        return TeacherTrees(final=given, anchors=(), accuracy=None, start=given)
    watch = Watch(unfinished=unfinished, keep=keep, breathe=breathe, should_stop=should_stop, mention=mention)
    start = prepare_start(context, pools, folder, watch)
    key = recipe_key(context, dataset)
    return _fine_tuned(context, dataset, pools, start, watch, key=key, name="teacher")


def prepare_historical(
    context: WorkerContext,
    dataset: Dataset,
    pools: Pools,
    folder: Path,
    spec: HistoricalSpec,
    *,
    unfinished: str | None,
    keep: Callable[[str, str], None],
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
    mention: Callable[[str], None] = lambda text: None,
) -> TeacherTrees:
    """Fine-tuned like the study's teacher, from the same start, on a slice of the training pool alone.

    Slice k of n has the rows k-1, k-1+n, ...; the rest is as `prepare_teacher` has it.
    """
    if spec.slice is None:
        raise AssertionError("a historical teacher without a slice is used as it is")
    name = f"teacher of slice {spec.slice.number}/{spec.slice.parts}"
    rows = np.arange(spec.slice.number - 1, len(pools["train"]), spec.slice.parts, dtype=np.int64)
    part = take(pools["train"], rows)
    if not (part.labels_N >= 0).any():
        raise DataError(
            f"the {name} has no labelled text to learn from: train has {len(pools['train'])} rows",
            hint="fewer parts, or more training texts",
        )
    watch = Watch(unfinished=unfinished, keep=keep, breathe=breathe, should_stop=should_stop, mention=mention)
    start = prepare_start(context, pools, folder, watch)
    key = recipe_key(context, dataset, spec.slice)
    return _fine_tuned(context, dataset, {**pools, "train": part}, start, watch, key=key, name=name)


def _fine_tuned(
    context: WorkerContext,
    dataset: Dataset,
    pools: Pools,
    start: Start,
    watch: Watch,
    *,
    key: str,
    name: str,
) -> TeacherTrees:
    select = (context.spec.teacher.finetune or FinetuneSpec()).select
    found = _cached(context, key, start, select)
    if found is not None:
        return found
    tuning = Tuning(context, dataset.labels, pools, start.folder, watch, key=key, name=name)
    meta = _meta(tuning.run(), start)
    entry = CacheEntry(meta["best"]["loss"], meta)
    cache.add(context.store.engine, KIND, key, entry.sha256, meta)
    tuning.checkpoints.drop()  # only now: whoever takes over from a death before this needs it
    return _trees(entry, start, select)


def _meta(tuned: Tuned, start: Start) -> dict[str, Any]:
    """What the cache says of a fine-tuning; of equally good anchors the earlier one counts."""
    best = best_anchors(tuned.anchors)
    upto = tuned.anchors.index(best["loss"]) + 1
    return {
        "anchors": [anchor.tree for anchor in tuned.anchors[:upto]],
        "best": {by: anchor.tree for by, anchor in best.items()},
        "accuracies": {by: anchor.accuracy for by, anchor in best.items()},
        "seconds": start.seconds + tuned.seconds,
    }


def best_anchors(anchors: Sequence[Anchor]) -> dict[str, Anchor]:
    """By ``loss`` and by ``accuracy``; the other of the two breaks ties, then the earlier anchor wins."""
    return {
        "loss": min(anchors, key=lambda anchor: (anchor.nll, -anchor.accuracy)),
        "accuracy": min(anchors, key=lambda anchor: (-anchor.accuracy, anchor.nll)),
    }


def _cached(context: WorkerContext, key: str, start: Start, select: str) -> TeacherTrees | None:
    """A teacher of the same recipe, if this study's artifact store holds all of it."""
    for entry in cache.find(context.store.engine, KIND, key):
        if select not in entry.meta.get("best", {"loss": entry.sha256}):
            continue
        trees = _trees(entry, start, select)
        if all(has_tree(context.store.blobs, tree) for tree in {*trees.best.values(), *trees.anchors}):
            return trees
    return None


def _trees(entry: CacheEntry, start: Start, select: str) -> TeacherTrees:
    meta = entry.meta
    if "best" not in meta:  # as version 0.1 wrote it: the best by loss, and all anchors
        meta = {"best": {"loss": entry.sha256}, "accuracies": {"loss": meta["accuracy"]}, **meta}
    anchors: list[str] = list(meta["anchors"])
    if entry.sha256 in anchors:
        anchors = anchors[: anchors.index(entry.sha256) + 1]
    return TeacherTrees(
        final=meta["best"][select],
        anchors=tuple(anchors),
        accuracy=meta["accuracies"][select],
        start=start.tree,
        best=meta["best"],
        seconds=meta.get("seconds"),
    )
