"""One epoch: batches, turns and micro-batches, and the checkpoints between two steps.

Notable:
- A turn is a forward pass, one backward pass through the sum of its terms, and one step. Whom a term
  teaches is decided by what it detaches, nowhere else.
- In micro-batches each term counts by its share of what it is a mean over, rows or labelled rows of the whole
  batch, so that the gradients add up to those of the whole batch.
- An epoch that was left between two steps is gone on with there, bit for bit on the CPU.
- Nothing is read back from the device but for a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.core.errors import KdsearchError
from kdsearch.data.batches import Output, collate, epoch_batches, micro_batches
from kdsearch.distill import checkpoint
from kdsearch.distill.checkpoint import Progress, Within
from kdsearch.distill.examples import Examples
from kdsearch.distill.live import TeacherInTraining, seed_of
from kdsearch.distill.losses import NO_LABEL
from kdsearch.distill.optimizer import Optimizer
from kdsearch.distill.settings import FitSettings
from kdsearch.distill.stage import LIVE, Seen, Stage, Term

IntArray = npt.NDArray[np.int64]


class AskedToStop(Exception):  # noqa: N818 - nothing is wrong
    """`should_stop` said so; what can be kept has been."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Checkpoints in the middle of an epoch."""

    every_s: float
    """Seconds from one checkpoint to the next; the ends of epochs, which `on_epoch` gets, are checkpoints."""
    put: Callable[[bytes, Progress], None]
    """Stores a checkpoint; also called before `fit` returns because it was asked to stop."""
    clock: Callable[[], float] = time.monotonic


class Due:
    """Whether it is time for a checkpoint."""

    def __init__(self, keep: Keep | None) -> None:
        self._keep = keep
        self._last = keep.clock() if keep else 0.0

    @property
    def now(self) -> bool:
        """Asked between two steps."""
        return self._keep is not None and self._keep.clock() - self._last >= self._keep.every_s

    def kept(self) -> None:
        """Begin to wait for the next one."""
        if self._keep is not None:
            self._last = self._keep.clock()


@dataclass(frozen=True)
class Training:
    """What stays the same from the first step to the last."""

    module: nn.Module
    learned: nn.ModuleList
    """What terms learn for themselves."""
    teacher: TeacherInTraining | None
    optimizer: Optimizer
    settings: FitSettings
    breathe: Callable[[], None]
    should_stop: Callable[[], bool]
    keep: Keep | None = None

    @property
    def state(self) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, nn.Module]]:
        """All that changes from step to step: the module, the optimizer, and what is trained beside it."""
        beside = {"learned": self.learned, **({"teacher": self.teacher} if self.teacher else {})}
        return self.module, self.optimizer.adamw, beside


class Epoch:
    """One epoch, from its first batch or from where a checkpoint left it."""

    def __init__(self, training: Training, stage: Stage, examples: Examples, progress: Progress) -> None:
        self.training, self.stage, self.examples, self.progress = training, stage, examples, progress
        within, device = progress.within, training.settings.device
        self._batches = within.batches if within else 0
        self._rows = within.rows if within else 0
        self._sums_K = (
            within.sums_K.to(device) if within else torch.zeros(len(stage.all_terms), device=device)
        )
        self._rows_before = progress.rows_finished
        self._kept = self._batches
        self._due = Due(training.keep)
        self._started = time.perf_counter() - (within.seconds if within else 0.0)

    @property
    def seconds(self) -> float:
        """Since it began, without the time between being left and being gone on with."""
        return time.perf_counter() - self._started

    def train(self) -> dict[str, float]:
        """The mean of each weighted term over its rows; raises AskedToStop."""
        self._wake()
        for rows in self._all_batches()[self._batches :]:
            self._between_steps()
            losses = [
                self._turn(terms, rows, turn)
                for turn, terms in enumerate((self.stage.terms, self.stage.then))
                if terms
            ]
            self._sums_K += torch.cat(losses) * len(rows)
            self._rows += len(rows)
            self._batches += 1
        return self._mean_losses()

    def breathe(self) -> None:
        """Between two batches of the validation; raises AskedToStop where the steps so far can be kept."""
        if self.training.keep is not None:
            self._between_steps()
        self.training.breathe()

    def _wake(self) -> None:
        """Train mode, and the random numbers that come next."""
        settings = self.training.settings
        torch.manual_seed(seed_of(f"{settings.seed}/{self.progress.epochs_run}"))
        if self.progress.within is not None:
            checkpoint.set_random_state(self.progress.within.random, settings.device)
        module, _, beside = self.training.state
        for trained in (module, *beside.values()):
            trained.train()

    def _all_batches(self) -> list[IntArray]:
        return epoch_batches(
            self.examples.pool.lengths,
            batch_size=self.training.settings.batch_size,
            seed=self.training.settings.seed,
            epoch=self.progress.epochs_run,
            rows=self.stage.rows_per_epoch,
            whole_passes=self.stage.follows_training,
        )

    def _between_steps(self) -> None:
        asked = self.training.should_stop()
        if asked or self._due.now:
            self._put_checkpoint()
        if asked:
            raise AskedToStop

    def _put_checkpoint(self) -> None:
        """Unless nothing happened since the last one."""
        training = self.training
        if training.keep is None or self._batches == self._kept:
            return
        within = Within(
            batches=self._batches,
            rows=self._rows,
            seconds=self.seconds,
            sums_K=self._sums_K.cpu().clone(),
            random=checkpoint.random_state(training.settings.device),
        )
        progress = replace(self.progress, rows_seen=self._rows_before + self._rows, within=within)
        training.keep.put(checkpoint.dump(progress, *training.state), progress)
        self._kept = self._batches
        self._due.kept()

    def _turn(self, terms: Sequence[Term], rows: IntArray, turn: int) -> Tensor:
        """One step on some rows; each weighted term."""
        training, labels_N = self.training, self.examples.pool.labels_N
        needs = frozenset(name for term in terms for name in term.needs)
        seen, taught = self._rows_before + self._rows, False
        sums_K = torch.zeros(len(terms), device=training.settings.device)
        offset = 0
        for part in micro_batches(rows, training.settings.accumulate):
            training.breathe()
            batch = self._forward(needs, part, seen + offset, turn)
            shares = shares_of(part, rows, labels_N)
            weighted_K = torch.stack([term.weight * shares[term.over] * term.loss(batch) for term in terms])
            if weighted_K.requires_grad:  # not so in a teacher's turn once it stands still
                weighted_K.sum().backward()
                taught = True
            sums_K += weighted_K.detach()
            offset += len(part)
        if taught:
            training.optimizer.step(seen + len(rows) / 2)
        return sums_K

    def _forward(self, needs: frozenset[str], rows: IntArray, rows_seen: int, turn: int) -> Seen:
        training, settings = self.training, self.training.settings
        batch = collate(self.examples.pool, rows, pad_id=settings.pad_id, device=settings.device)
        kind = torch.device(settings.device).type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
            output: Output = training.module(batch.input_ids_BT, batch.attention_mask_BT)
        signals = {name: self.examples.look_up(name, batch.rows_B, rows_seen) for name in needs - {LIVE}}
        if LIVE in needs and training.teacher is not None:
            signals[LIVE] = training.teacher(rows, rows_seen, turn)
        return Seen(
            logits_BC=output.logits_BC, hidden_BD=output.hidden_BD, labels_B=batch.labels_B, signals=signals
        )

    def _mean_losses(self) -> dict[str, float]:
        means = {
            t.name: value / self.stage.rows_per_epoch
            for t, value in zip(self.stage.all_terms, self._sums_K.tolist(), strict=True)
        }
        total = sum(means.values())
        if not np.isfinite(total):
            raise KdsearchError(
                f"training diverged: the loss of epoch {self.progress.epochs_run + 1} is {total}",
                hint="lower the learning rate",
            )
        return {**means, "total": total}


def shares_of(part: IntArray, rows: IntArray, labels_N: IntArray) -> dict[str, float]:
    """What a micro-batch is of its whole batch, by what a loss is a mean over; 1 where it is all of it."""
    if len(part) == len(rows):
        return {"rows": 1.0, "labelled": 1.0}
    labelled, of = ((labels_N[numbers] != NO_LABEL).sum().item() for numbers in (part, rows))
    return {"rows": len(part) / len(rows), "labelled": labelled / max(1, of)}
