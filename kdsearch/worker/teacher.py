"""The teacher of a study: used as it is, or fine-tuned once and shared by every study that asks the same.

Fine-tuning is the one training loop with the hard term alone: linear warm-up and decay, one
"epoch" per anchor, best by validation loss. Whoever takes over after a death goes on from the
last finished anchor.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import torch

from kdsearch.core.blobs import get_tree, has_tree, put_tree
from kdsearch.core.canonical import canonical_json, sha256_of
from kdsearch.core.records import EpochReport
from kdsearch.core.specteacher import FinetuneSpec
from kdsearch.data.dataset import Dataset
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.fit import FitReport, FitSettings, fit
from kdsearch.distill.losses import hard_label
from kdsearch.distill.stage import Seen, Stage, Term
from kdsearch.store import cache
from kdsearch.teachers import build, source
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext

KIND = "teacher"
Pools = dict[str, TokenPool]


@dataclass(frozen=True, kw_only=True)
class TeacherTrees:
    """Where the teacher's folders are stored."""

    final: str
    anchors: tuple[str, ...]
    accuracy: float | None
    """On the validation pool, as fine-tuning measured it; None for a teacher used as it is."""


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Fine-tuning up to the last finished anchor."""

    checkpoint: str
    anchors: tuple[str, ...]


def source_folder(context: WorkerContext, dataset: Dataset, into: Path) -> Path:
    """The teacher before fine-tuning: as given, or built from its configuration."""
    if context.inputs.teacher is not None:
        return get_tree(context.store.blobs, context.inputs.teacher, into)
    spec = context.spec.teacher
    if spec.build is None:
        raise AssertionError("a study without a teacher cannot be created")
    return build.build_teacher(
        spec.build,
        list(dataset.pools["train"].texts),
        dataset.labels,
        max_length=spec.max_length,
        seed=context.spec.training.seed,
        folder=into,
    )


def recipe_key(context: WorkerContext, dataset: Dataset) -> str:
    """Two studies whose key is equal share a fine-tuned teacher."""
    spec = context.spec
    return sha256_of(
        {
            "teacher": context.inputs.teacher,
            "recipe": spec.teacher.model_dump(mode="json", exclude={"model"}, exclude_defaults=True),
            "labels": dataset.labels,
            "data": dataset.fingerprint,
            "seed": spec.training.seed,
            "objective": spec.objectives.quality,
        }
    )


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
) -> TeacherTrees:
    """The classifier that teaches, stored.

    ``folder`` is the source folder, ``unfinished`` the checkpoint a dead holder left, and
    ``keep(progress, checkpoint)`` records how far this one is. Raises Stopped.
    """
    if context.inputs.teacher is not None and context.inputs.teacher_classifies:
        return TeacherTrees(final=context.inputs.teacher, anchors=(), accuracy=None)
    key = recipe_key(context, dataset)
    found = _cached(context, key)
    if found is not None:
        return found
    tuning = _Tuning(context, dataset, pools, folder, keep)
    trees = tuning.run(unfinished, breathe=breathe, should_stop=should_stop)
    meta = {"anchors": list(trees.anchors), "accuracy": trees.accuracy}
    cache.add(context.store.engine, KIND, key, trees.final, meta)
    tuning.checkpoints.drop()  # only now: whoever takes over from a death before this needs it
    return trees


def _cached(context: WorkerContext, key: str) -> TeacherTrees | None:
    """A teacher of the same recipe, if this study's artifact store holds all of it."""
    for entry in cache.find(context.store.engine, KIND, key):
        anchors = tuple(entry.meta["anchors"])
        if all(has_tree(context.store.blobs, tree) for tree in (entry.sha256, *anchors)):
            return TeacherTrees(final=entry.sha256, anchors=anchors, accuracy=entry.meta["accuracy"])
    return None


class _Tuning:
    """One fine-tuning: the loop's settings, and what is stored after each anchor."""

    def __init__(
        self,
        context: WorkerContext,
        dataset: Dataset,
        pools: Pools,
        folder: Path,
        keep: Callable[[str, str], None],
    ) -> None:
        self.context, self.dataset, self.pools, self.keep = context, dataset, pools, keep
        self.spec = context.spec.teacher.finetune or FinetuneSpec()
        seed = context.spec.training.seed
        self.tokenizer = source.load_tokenizer(folder)
        self.module = source.load_encoder_for(folder, dataset.labels, seed=seed).to(context.options.device)
        if self.spec.layers != "all":
            source.freeze_all_but_last(self.module, self.spec.layers.last)
        self.anchors: list[str] = []
        self.checkpoints = Checkpoints(context.store.blobs, f"study {context.study.id} teacher")

    def run(
        self, unfinished: str | None, *, breathe: Callable[[], None], should_stop: Callable[[], bool]
    ) -> TeacherTrees:
        report = fit(
            self.module,
            (self._stage(),),
            pools=self.pools,
            teacher_logits={},
            validation=self.pools["validation"],
            validation_teacher_logits=None,
            settings=self._settings(),
            on_epoch=self._finished_anchor,
            resume=self._resume(unfinished),
            breathe=breathe,
            should_stop=should_stop,
        )
        if report.stopped:
            raise Stopped
        return self._store_best(report)

    def _stage(self) -> Stage:
        def hard(seen: Seen) -> torch.Tensor:
            return hard_label(seen.logits_BC, seen.labels_B)

        rows = self.spec.epochs * len(self.pools["train"])
        return Stage(
            name="finetune",
            pools=("train",),
            terms=(Term("hard", 1.0, hard),),
            epochs=self.spec.anchors,
            rows_per_epoch=ceil(rows / self.spec.anchors),
        )

    def _settings(self) -> FitSettings:
        return FitSettings(
            learning_rate=self.spec.learning_rate,
            batch_size=self.spec.batch_size,
            seed=self.context.spec.training.seed,
            weight_decay=0.01,
            clip_norm=1.0,
            schedule="linear",
            select="nll",
            objective=self.context.spec.objectives.quality,
            labels=self.dataset.labels,
            device=self.context.options.device,
            pad_id=int(self.tokenizer.pad_token_id),
        )

    def _resume(self, unfinished: str | None) -> bytes | None:
        blobs = self.context.store.blobs
        if unfinished is None or not blobs.exists(unfinished):
            return None
        state = Unfinished(**json.loads(blobs.open(unfinished).read_text()))
        self.checkpoints.newest = state.checkpoint
        found = self.checkpoints.read()
        if found is not None:
            self.anchors = list(state.anchors)
        return found

    def _finished_anchor(self, report: EpochReport, checkpoint: bytes) -> None:
        self.anchors.append(self._store_module())
        sha256 = self.checkpoints.put(checkpoint)
        state = Unfinished(checkpoint=sha256, anchors=tuple(self.anchors))
        text = f"fine-tuning the teacher: {len(self.anchors)} of {self.spec.anchors} anchors"
        if report.scores is not None:
            text += f", {self.context.spec.objectives.quality} {report.scores.quality:.4f}"
        self.keep(text, self.context.store.blobs.put(canonical_json(asdict(state)).encode()))
        self.checkpoints.supersede(sha256)

    def _store_module(self) -> str:
        with tempfile.TemporaryDirectory(prefix="kdsearch-teacher-") as folder:
            source.save_teacher(self.module, self.tokenizer, Path(folder))
            return put_tree(self.context.store.blobs, Path(folder))

    def _store_best(self, report: FitReport) -> TeacherTrees:
        self.module.load_state_dict(report.best_state)
        final = self._store_module()
        assert report.best_scores is not None, "a fine-tuning that was not stopped has scored an anchor"
        return TeacherTrees(final=final, anchors=tuple(self.anchors), accuracy=report.best_scores.accuracy)
