"""Fine-tuning a teacher: the one training loop with the hard term alone.

Linear warm-up and decay, one "epoch" per anchor; every anchor is stored as it is finished. Whoever takes over
after a death goes on from the last checkpoint, of which there are some between two anchors, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

from kdsearch.core.blobs import put_tree
from kdsearch.core.records import EpochReport
from kdsearch.core.specteacher import FinetuneSpec
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.checkpoint import Progress
from kdsearch.distill.fit import FitSettings, Keep, fit
from kdsearch.distill.losses import hard_label
from kdsearch.distill.stage import Seen, Stage, Term
from kdsearch.teachers import source
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.unfinished import Anchor, Unfinished, Watch

MENTION_S = 5.0
"""How often it says how far it is, beside its checkpoints."""


@dataclass(frozen=True)
class Tuned:
    """All anchors in order of training, and what it took."""

    anchors: tuple[Anchor, ...]
    seconds: float


class Tuning:
    """One fine-tuning; `name` says of which teacher, `key` under which recipe."""

    def __init__(
        self,
        context: WorkerContext,
        labels: tuple[str, ...],
        pools: Mapping[str, TokenPool],
        folder: Path,
        watch: Watch,
        *,
        key: str,
        name: str,
    ) -> None:
        self.context, self.labels, self.pools, self.watch = context, labels, pools, watch
        self.key, self.name = key, name
        self.spec = context.spec.teacher.finetune or FinetuneSpec()
        self.tokenizer = source.load_tokenizer(folder)
        module = source.load_encoder_for(folder, labels, seed=context.spec.training.seed)
        self.module = module.to(context.options.device)
        if self.spec.layers != "all":
            source.freeze_all_but_last(self.module, self.spec.layers.last)
        self.anchors: list[Anchor] = []
        self.checkpoints = Checkpoints(context.store.blobs, f"study {context.study.id} {name}")
        self._steps = 0
        """Since the last anchor; a resumed one begins at its last anchor."""

    def run(self) -> Tuned:
        """Raises Stopped; `checkpoints` are the caller's to drop, once the teacher is on record."""
        report = fit(
            self.module,
            (self._stage(),),
            pools=self.pools,
            signals={},
            validation=self.pools["validation"],
            validation_signals={},
            settings=self._settings(),
            on_epoch=self._finished_anchor,
            resume=self._resume(),
            breathe=self.watch.breathe,
            should_stop=self._telling(),
            keep=Keep(every_s=self.context.options.checkpoint_s, put=self._between_anchors),
        )
        if report.stopped:
            raise Stopped
        return Tuned(tuple(self.anchors), report.seconds)

    def _telling(self) -> Callable[[], bool]:
        """Asked before every step, it says now and then how far they are."""
        rows = self.spec.epochs * len(self.pools["train"])
        told = time.monotonic()

        def should_stop() -> bool:
            nonlocal told
            self._steps += 1
            if time.monotonic() - told >= MENTION_S:
                told = time.monotonic()
                share = self._rows_seen(rows / self.spec.anchors) / rows
                self.watch.mention(f"fine-tuning the {self.name}: {share:.0%} of the rows seen")
            return self.watch.should_stop()

        return should_stop

    def _rows_seen(self, per_anchor: float) -> float:
        """At most up to the next anchor: batches of its validation are asked about, too."""
        return len(self.anchors) * per_anchor + min(per_anchor, self._steps * self.spec.batch_size)

    def _stage(self) -> Stage:
        def hard(seen: Seen) -> torch.Tensor:
            return hard_label(seen.logits_BC, seen.labels_B, smoothing=self.spec.label_smoothing)

        rows = self.spec.epochs * len(self.pools["train"])
        return Stage(
            name="finetune",
            pools=("train",),
            terms=(Term("hard", 1.0, hard, over="labelled"),),
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
            labels=self.labels,
            device=self.context.options.device,
            pad_id=int(self.tokenizer.pad_token_id),
        )

    def _resume(self) -> bytes | None:
        state = Unfinished.find(self.context.store.blobs, self.watch.unfinished, recipe=self.key)
        if state is None:
            return None
        self.checkpoints.newest = state.checkpoint
        found = self.checkpoints.read()
        if found is not None:
            self.anchors = list(state.anchors)
        return found

    def _finished_anchor(self, report: EpochReport, checkpoint: bytes) -> None:
        assert report.scores is not None, "every stage of a fine-tuning is scored"
        scores = report.scores
        self._steps = 0
        self.anchors.append(Anchor(tree=self._store_module(), nll=scores.nll, accuracy=scores.accuracy))
        reached = f"{self.context.spec.objectives.quality} {scores.quality:.4f}"
        self._keep(checkpoint, f"{len(self.anchors)} of {self.spec.anchors} anchors, {reached}")

    def _between_anchors(self, checkpoint: bytes, progress: Progress) -> None:
        rows = self.spec.epochs * len(self.pools["train"])
        self._keep(checkpoint, f"{progress.rows_seen / rows:.0%} of the rows seen")

    def _keep(self, checkpoint: bytes, how_far: str) -> None:
        sha256 = self.checkpoints.put(checkpoint)
        state = Unfinished(recipe=self.key, checkpoint=sha256, anchors=tuple(self.anchors))
        said = f"fine-tuning the {self.name}: {how_far}"
        self.watch.keep(said, state.put(self.context.store.blobs))
        self.checkpoints.supersede(sha256)

    def _store_module(self) -> str:
        with tempfile.TemporaryDirectory(prefix="kdsearch-teacher-") as folder:
            source.save_teacher(self.module, self.tokenizer, Path(folder))
            return put_tree(self.context.store.blobs, Path(folder))
