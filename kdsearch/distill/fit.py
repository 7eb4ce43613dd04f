"""The one training loop: stages, epochs, batches, steps, read from top to bottom.

Notable:
- Students and teachers alike: anything that maps (input_ids, attention_mask) to `Output`.
- Same settings, same weights: order of data and dropout depend on (seed, epoch) alone.
- A checkpoint after every epoch; resumed equals uninterrupted, bit for bit on the CPU.
- Nothing is read back from the device within an epoch.
- Losses and scores in float32; the forward pass is bfloat16 on CUDA.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.core.errors import KdsearchError
from kdsearch.core.records import EpochReport, Scores
from kdsearch.data.batches import Output, collate, epoch_batches
from kdsearch.data.tokens import TokenPool, concat
from kdsearch.distill import checkpoint
from kdsearch.distill.checkpoint import Best, Progress
from kdsearch.distill.stage import Seen, Stage
from kdsearch.measure.quality import score
from kdsearch.teachers.signals import compute_logits

FloatArray = npt.NDArray[np.float32]
WARM_UP = 0.1
"""Share of all rows over which the linear schedule rises to the learning rate."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to train; equal settings give equal weights on the same machine."""

    learning_rate: float
    batch_size: int
    seed: int
    objective: str
    """The quality to score, e.g. ``accuracy`` or ``f1:spam``."""
    labels: tuple[str, ...]
    pad_id: int
    device: str = "cpu"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    schedule: Literal["constant", "linear"] = "linear"
    """``linear``: up over the first tenth of all rows, then down to 0; over all stages."""
    select: Literal["quality", "nll"] = "quality"
    """What makes an epoch the best; the other one breaks ties, then the earlier epoch wins."""


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What training gave."""

    best_state: dict[str, Tensor] = field(repr=False)
    """Weights of the best scored epoch, on the CPU; empty if stopped before there was one."""
    best_scores: Scores | None
    """None only if stopped before the first scored epoch ended."""
    best_epoch: int
    epochs_run: int
    rows_seen: int
    validation_logits_NC: FloatArray = field(repr=False)
    """Of the best epoch, in the validation pool's order."""
    stopped: bool
    seconds: float


@dataclass(frozen=True)
class _Examples:
    """A stage's pools as one, and the teacher's logits row by row."""

    pool: TokenPool
    teacher_logits_NC: Tensor | None


@dataclass(frozen=True)
class _Training:
    """What stays the same from the first step to the last."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    settings: FitSettings
    total_rows: int
    breathe: Callable[[], None]
    should_stop: Callable[[], bool]


def fit(
    module: nn.Module,
    stages: Sequence[Stage],
    *,
    pools: Mapping[str, TokenPool],
    teacher_logits: Mapping[str, FloatArray],
    validation: TokenPool,
    validation_teacher_logits: FloatArray | None,
    settings: FitSettings,
    on_epoch: Callable[[EpochReport, bytes], None],
    resume: bytes | None,
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
) -> FitReport:
    """Train a module through all stages and keep its best scored epoch.

    `on_epoch` gets each epoch's report and checkpoint; `resume` is such a checkpoint. `should_stop` is asked
    before every step: True ends the training, and what the last checkpoint has not, is lost.
    """
    training = _begin(module, stages, settings, breathe, should_stop)
    progress = checkpoint.load(resume, module, training.optimizer) if resume else Progress()
    for stage, examples in _epochs(stages, pools, teacher_logits, settings, skip=progress.epochs_run):
        started = time.perf_counter()
        losses = _train_epoch(training, stage, examples, progress)
        if losses is None:
            return _report(progress, stopped=True)
        epoch = progress.epochs_run + 1
        scored = _validate(training, validation, validation_teacher_logits, epoch) if stage.scored else None
        seconds = time.perf_counter() - started
        progress = _advance(progress, stage, scored, settings, seconds=seconds)
        scores = scored.scores if scored else None
        rows_seen = progress.rows_seen
        report = EpochReport(
            stage=stage.name, epoch=epoch, rows_seen=rows_seen, losses=losses, scores=scores, seconds=seconds
        )
        on_epoch(report, checkpoint.dump(progress, module, training.optimizer))
    return _report(progress, stopped=False)


def _begin(
    module: nn.Module,
    stages: Sequence[Stage],
    settings: FitSettings,
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
) -> _Training:
    if not any(stage.scored and stage.epochs for stage in stages):
        raise ValueError("no stage is scored, so that nothing could be the best")
    module.to(settings.device)
    total_rows = sum(stage.epochs * stage.rows_per_epoch for stage in stages)
    return _Training(module, _optimizer(module, settings), settings, total_rows, breathe, should_stop)


def _epochs(
    stages: Sequence[Stage],
    pools: Mapping[str, TokenPool],
    teacher_logits: Mapping[str, FloatArray],
    settings: FitSettings,
    *,
    skip: int,
) -> Iterator[tuple[Stage, _Examples]]:
    """Every epoch of every stage but the first `skip`, with its examples (gathered once a stage)."""
    for stage in stages:
        if skip < stage.epochs:
            examples = _gather(stage, pools, teacher_logits, settings)
            yield from ((stage, examples) for _ in range(stage.epochs - skip))
        skip = max(0, skip - stage.epochs)


def _gather(
    stage: Stage,
    pools: Mapping[str, TokenPool],
    teacher_logits: Mapping[str, FloatArray],
    settings: FitSettings,
) -> _Examples:
    pool = concat([pools[name] for name in stage.pools], name="+".join(stage.pools))
    if not stage.needs_teacher:
        return _Examples(pool, None)
    for name in stage.pools:
        logits_NC = teacher_logits[name]
        expected = (len(pools[name]), len(settings.labels))
        if logits_NC.shape != expected or not np.isfinite(logits_NC).all():
            raise ValueError(f"teacher logits of {name!r}: {logits_NC.shape}, not {expected}, or not finite")
    logits_NC = np.concatenate([teacher_logits[name] for name in stage.pools]).astype(np.float32)
    return _Examples(pool, torch.from_numpy(logits_NC).to(settings.device))


def _train_epoch(
    training: _Training, stage: Stage, examples: _Examples, progress: Progress
) -> dict[str, float] | None:
    """One epoch; the mean of each weighted term over its rows, or None if asked to stop."""
    settings, rows_seen = training.settings, progress.rows_seen
    _seed_epoch(settings.seed, progress.epochs_run)
    training.module.train()
    sums_K = torch.zeros(len(stage.terms), device=settings.device)
    batches = epoch_batches(
        examples.pool.lengths,
        batch_size=settings.batch_size,
        seed=settings.seed,
        epoch=progress.epochs_run,
        rows=stage.rows_per_epoch,
    )
    for rows in batches:
        if training.should_stop():
            return None
        training.breathe()
        _set_learning_rate(training, (rows_seen + len(rows) / 2) / training.total_rows)
        seen = _forward(training, examples, rows)
        weighted_K = torch.stack([term.weight * term.loss(seen) for term in stage.terms])
        weighted_K.sum().backward()
        nn.utils.clip_grad_norm_(training.module.parameters(), settings.clip_norm)
        training.optimizer.step()
        training.optimizer.zero_grad()
        sums_K += weighted_K.detach() * len(rows)
        rows_seen += len(rows)
    return _mean_losses(stage, sums_K, epoch=progress.epochs_run + 1)


def _forward(training: _Training, examples: _Examples, rows: npt.NDArray[np.int64]) -> Seen:
    settings = training.settings
    batch = collate(examples.pool, rows, pad_id=settings.pad_id, device=settings.device)
    kind = torch.device(settings.device).type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
        output: Output = training.module(batch.input_ids_BT, batch.attention_mask_BT)
    teacher_NC = examples.teacher_logits_NC
    return Seen(
        logits_BC=output.logits_BC,
        hidden_BD=output.hidden_BD,
        labels_B=batch.labels_B,
        teacher_logits_BC=None if teacher_NC is None else teacher_NC[batch.rows_B],
    )


def _mean_losses(stage: Stage, sums_K: Tensor, *, epoch: int) -> dict[str, float]:
    means = {
        t.name: value / stage.rows_per_epoch for t, value in zip(stage.terms, sums_K.tolist(), strict=True)
    }
    total = sum(means.values())
    if not np.isfinite(total):
        raise KdsearchError(
            f"training diverged: the loss of epoch {epoch} is {total}", hint="lower the learning rate"
        )
    return {**means, "total": total}


def _validate(
    training: _Training, validation: TokenPool, teacher_logits_NC: FloatArray | None, epoch: int
) -> Best:
    settings = training.settings
    logits_NC = compute_logits(
        training.module,
        validation,
        pad_id=settings.pad_id,
        device=settings.device,
        breathe=training.breathe,
    )
    if not np.isfinite(logits_NC).all():
        raise KdsearchError(
            f"training diverged: the logits after epoch {epoch} are not finite",
            hint="lower the learning rate",
        )
    scores = score(
        logits_NC,
        validation.labels_N,
        labels=settings.labels,
        objective=settings.objective,
        teacher_logits_NC=teacher_logits_NC,
    )
    state = checkpoint.state_of(training.module)
    return Best(epoch=epoch, scores=scores, state=state, validation_logits_NC=logits_NC)


def _advance(
    progress: Progress, stage: Stage, scored: Best | None, settings: FitSettings, *, seconds: float
) -> Progress:
    best = progress.best
    if scored is not None and (best is None or _merit(scored, settings) > _merit(best, settings)):
        best = scored
    return Progress(
        epochs_run=progress.epochs_run + 1,
        rows_seen=progress.rows_seen + stage.rows_per_epoch,
        seconds=progress.seconds + seconds,
        best=best,
    )


def _merit(candidate: Best, settings: FitSettings) -> tuple[float, float]:
    quality, likelihood = candidate.scores.quality, -candidate.scores.nll
    return (quality, likelihood) if settings.select == "quality" else (likelihood, quality)


def _report(progress: Progress, *, stopped: bool) -> FitReport:
    best = progress.best
    return FitReport(
        best_state=best.state if best else {},
        best_scores=best.scores if best else None,
        best_epoch=best.epoch if best else 0,
        epochs_run=progress.epochs_run,
        rows_seen=progress.rows_seen,
        validation_logits_NC=best.validation_logits_NC if best else np.empty((0, 0), np.float32),
        stopped=stopped,
        seconds=progress.seconds,
    )


def _optimizer(module: nn.Module, settings: FitSettings) -> torch.optim.AdamW:
    """Bias-corrected AdamW; biases and norms are not decayed, frozen parameters are left out."""
    learned = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def _set_learning_rate(training: _Training, share: float) -> None:
    """`share` of all rows is behind the middle of this step."""
    factor = 1.0
    if training.settings.schedule == "linear":
        factor = min(share / WARM_UP, (1 - share) / (1 - WARM_UP))
    for group in training.optimizer.param_groups:
        group["lr"] = training.settings.learning_rate * factor


def _seed_epoch(seed: int, epoch: int) -> None:
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
