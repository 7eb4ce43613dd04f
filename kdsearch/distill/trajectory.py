"""The trajectory: what a teacher in training says of every row at every visit, recorded once and replayed.

`joint_isolated` trains a teacher that never hears of its student, so that all trials can see the same one.
Replayed at equal batches it equals a live teacher bit for bit on the CPU: the batches, the random numbers,
the schedule and the steps are those of `fit` with a joint stage.

Letters: E passes, N rows of the pool, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from kdsearch.core.errors import KdsearchError
from kdsearch.core.records import EpochReport, Scores
from kdsearch.core.specteacher import JointSpec
from kdsearch.data.batches import epoch_batches, micro_batches
from kdsearch.data.tokens import TokenPool
from kdsearch.distill import checkpoint
from kdsearch.distill.checkpoint import Progress
from kdsearch.distill.epoch import AskedToStop, Due, Keep, shares_of
from kdsearch.distill.fit import FitSettings, validate
from kdsearch.distill.live import TeacherInTraining
from kdsearch.distill.losses import hard_label
from kdsearch.distill.optimizer import Learner, Optimizer, Schedule

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A recorded training of a teacher."""

    logits_ENC: FloatArray = field(repr=False)
    """In train mode at each visit, before the step."""
    teacher_scores: Scores
    """On the validation pool, after the last step."""
    seconds: float
    """Of the passes, over all attempts."""


def record_trajectory(
    module: nn.Module,
    pool: TokenPool,
    *,
    joint: JointSpec,
    validation: TokenPool,
    settings: FitSettings,
    on_epoch: Callable[[EpochReport, bytes], None],
    resume: bytes | None,
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
    keep: Keep | None = None,
) -> Trajectory | None:
    """Train a teacher on its labels and write down its logits; None if stopped.

    Rate, batch size and passes are `joint`'s; of the settings count the seed, what scores, decays and clips,
    and the micro-batches. The rest is as in `fit`; a pass is an epoch, and not scored.
    """

    def going_on() -> None:
        if should_stop():
            raise AskedToStop
        breathe()

    recording = _Recording(module, pool, joint, settings, keep)
    if resume is not None:
        recording.load(resume)
    try:
        for epoch in range(len(recording.said), joint.epochs):
            on_epoch(recording.record_pass(epoch, breathe, should_stop), recording.dump())
        when = "the teacher's last step"
        scores, _ = validate(
            module, validation, settings, going_on if keep else breathe, signals={}, when=when
        )
    except AskedToStop:
        return None
    return Trajectory(logits_ENC=np.stack(recording.said), teacher_scores=scores, seconds=recording.seconds)


class _Recording:
    """The teacher, its steps, what it said in every finished pass, and how far a begun one is."""

    def __init__(
        self, module: nn.Module, pool: TokenPool, joint: JointSpec, settings: FitSettings, keep: Keep | None
    ) -> None:
        self.pool, self.batch_size, self.settings, self.keep = pool, joint.batch_size, settings, keep
        self.teacher = TeacherInTraining(
            module,
            pool,
            pad_id=settings.pad_id,
            num_labels=len(settings.labels),
            passes=joint.epochs,
            seed=settings.seed,
            device=settings.device,
        )
        rows = self.teacher.rows_to_learn
        schedule = Schedule(learning_rate=joint.learning_rate, kind="linear", rows=rows)
        self.optimizer = Optimizer(
            [Learner(module.parameters(), schedule)],
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
        )
        self.labels_N = torch.from_numpy(pool.labels_N.copy())
        self.said: list[FloatArray] = []
        self.seconds = 0.0
        """Of finished passes."""
        self._batches, self._rows, self._total, self._spent = self._none_yet()

    def _none_yet(self) -> tuple[int, int, torch.Tensor, float]:
        """Batches, rows, sum of the losses and seconds of a pass that has not begun."""
        return 0, 0, torch.zeros((), device=self.settings.device), 0.0

    def record_pass(
        self, epoch: int, breathe: Callable[[], None], should_stop: Callable[[], bool]
    ) -> EpochReport:
        """One pass over the pool, or what is left of it; raises AskedToStop."""
        started, due, kept = time.perf_counter() - self._spent, Due(self.keep), self._batches
        self.teacher.train()
        for rows in self._all_batches(epoch)[self._batches :]:
            asked = should_stop()
            if (asked or due.now) and self._batches > kept:
                self._spent = time.perf_counter() - started
                self._put_checkpoint(epoch)
                due.kept()
                kept = self._batches
            if asked:
                raise AskedToStop
            self._total += self._step(rows, epoch * len(self.pool) + self._rows, breathe)
            self._batches, self._rows = self._batches + 1, self._rows + len(rows)
        return self._finish_pass(epoch, time.perf_counter() - started)

    def _step(self, rows: IntArray, seen: int, breathe: Callable[[], None]) -> torch.Tensor:
        """The loss, summed over the rows."""
        loss, offset = torch.zeros((), device=self.settings.device), 0
        for part in micro_batches(rows, self.settings.accumulate):
            breathe()
            labels_B = self.labels_N[part].to(self.settings.device)
            of_part = hard_label(self.teacher(part, seen + offset), labels_B)
            of_part = shares_of(part, rows, self.pool.labels_N)["labelled"] * of_part
            of_part.backward()
            loss += of_part.detach()
            offset += len(part)
        self.optimizer.step(seen + len(rows) / 2)
        return loss * len(rows)

    def _finish_pass(self, epoch: int, seconds: float) -> EpochReport:
        mean = self._total.item() / len(self.pool)
        if not np.isfinite(mean):
            raise KdsearchError(
                f"the joint training of the teacher diverged: the loss of pass {epoch + 1} is {mean}",
                hint="lower teacher.joint.learning_rate",
            )
        self.said.append(self.teacher.said_NC.cpu().numpy().copy())
        self.seconds += seconds
        self._batches, self._rows, self._total, self._spent = self._none_yet()
        return EpochReport(
            stage="trajectory",
            epoch=epoch + 1,
            rows_seen=(epoch + 1) * len(self.pool),
            losses={"teacher_hard": mean, "total": mean},
            scores=None,
            seconds=seconds,
        )

    def _all_batches(self, epoch: int) -> list[IntArray]:
        return epoch_batches(
            self.pool.lengths,
            batch_size=self.batch_size,
            seed=self.settings.seed,
            epoch=epoch,
            rows=len(self.pool),
            whole_passes=True,
        )

    def _put_checkpoint(self, epoch: int) -> None:
        if self.keep is not None:
            seen = epoch * len(self.pool) + self._rows
            self.keep.put(self.dump(), Progress(epochs_run=epoch, rows_seen=seen, seconds=self.seconds))

    def dump(self) -> bytes:
        """Everything that the next step needs; its random numbers are those of the rows drawn before."""
        content: dict[str, Any] = {
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.adamw.state_dict(),
            "said": [torch.from_numpy(said_NC) for said_NC in self.said],
            "seconds": self.seconds,
            "within": [self._batches, self._rows, self._total, self._spent],
        }
        return checkpoint.pack(content)

    def load(self, data: bytes) -> None:
        """Go on where `dump` left it."""
        content = checkpoint.unpack(data)
        self.teacher.load_state_dict(content["teacher"])
        self.optimizer.adamw.load_state_dict(content["optimizer"])
        self.said = [said_NC.numpy() for said_NC in content["said"]]
        self.seconds = content["seconds"]
        if "within" in content:  # checkpoints were once those of finished passes only
            self._batches, self._rows, total, self._spent = content["within"]
            self._total = total.to(self.settings.device)
