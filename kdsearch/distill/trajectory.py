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
from kdsearch.data.batches import epoch_batches
from kdsearch.data.tokens import TokenPool
from kdsearch.distill import checkpoint
from kdsearch.distill.fit import FitSettings, validate
from kdsearch.distill.live import TeacherInTraining
from kdsearch.distill.losses import hard_label
from kdsearch.distill.optimizer import Learner, Optimizer, Schedule

FloatArray = npt.NDArray[np.float32]


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
) -> Trajectory | None:
    """Train a teacher on its labels and write down its logits; None if stopped.

    Rate, batch size and passes are `joint`'s; of the settings count the seed, what scores, decays and clips.
    `on_epoch` and `resume` are as in `fit`; a pass is an epoch, and not scored.
    """
    recording = _Recording(module, pool, joint, settings)
    if resume is not None:
        recording.load(resume)
    for epoch in range(len(recording.said), joint.epochs):
        started = time.perf_counter()
        loss = recording.record_pass(epoch, breathe, should_stop)
        if loss is None:
            return None
        seconds = time.perf_counter() - started
        recording.seconds += seconds
        report = EpochReport(
            stage="trajectory",
            epoch=epoch + 1,
            rows_seen=(epoch + 1) * len(pool),
            losses={"teacher_hard": loss, "total": loss},
            scores=None,
            seconds=seconds,
        )
        on_epoch(report, recording.dump())
    scores, _ = validate(module, validation, settings, breathe, signals={}, when="the teacher's last step")
    return Trajectory(logits_ENC=np.stack(recording.said), teacher_scores=scores, seconds=recording.seconds)


class _Recording:
    """The teacher, its steps, and what it said in every finished pass."""

    def __init__(self, module: nn.Module, pool: TokenPool, joint: JointSpec, settings: FitSettings) -> None:
        self.pool, self.batch_size, self.settings = pool, joint.batch_size, settings
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

    def record_pass(
        self, epoch: int, breathe: Callable[[], None], should_stop: Callable[[], bool]
    ) -> float | None:
        """One pass over the pool; its mean loss, or None if asked to stop."""
        self.teacher.train()
        total, seen = torch.zeros((), device=self.settings.device), epoch * len(self.pool)
        for rows in self._batches(epoch):
            if should_stop():
                return None
            breathe()
            labels_B = self.labels_N[rows].to(self.settings.device)
            loss = hard_label(self.teacher(rows, seen), labels_B)
            loss.backward()
            self.optimizer.step(seen + len(rows) / 2)
            total += loss.detach() * len(rows)
            seen += len(rows)
        mean = total.item() / len(self.pool)
        if not np.isfinite(mean):
            raise KdsearchError(
                f"the joint training of the teacher diverged: the loss of pass {epoch + 1} is {mean}",
                hint="lower teacher.joint.learning_rate",
            )
        self.said.append(self.teacher.said_NC.cpu().numpy().copy())
        return mean

    def _batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        return epoch_batches(
            self.pool.lengths,
            batch_size=self.batch_size,
            seed=self.settings.seed,
            epoch=epoch,
            rows=len(self.pool),
            whole_passes=True,
        )

    def dump(self) -> bytes:
        """Everything that the next pass needs."""
        content: dict[str, Any] = {
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.adamw.state_dict(),
            "said": [torch.from_numpy(said_NC) for said_NC in self.said],
            "seconds": self.seconds,
        }
        return checkpoint.pack(content)

    def load(self, data: bytes) -> None:
        """Go on where `dump` left it."""
        content = checkpoint.unpack(data)
        self.teacher.load_state_dict(content["teacher"])
        self.optimizer.adamw.load_state_dict(content["optimizer"])
        self.said = [said_NC.numpy() for said_NC in content["said"]]
        self.seconds = content["seconds"]
