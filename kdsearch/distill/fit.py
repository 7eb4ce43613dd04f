"""The one training loop: stages, epochs, batches, turns, read from top to bottom.

Notable:
- Students and teachers alike: anything that maps (input_ids, attention_mask) to `Output`.
- A turn is a forward pass, one backward pass through the sum of its terms, and one step. Whom a term
  teaches is decided by what it detaches, nowhere else.
- Same settings, same weights: order of data and dropout depend on (seed, epoch) alone.
- A checkpoint after every epoch; resumed equals uninterrupted, bit for bit on the CPU.
- Nothing is read back from the device within an epoch.
- Losses and scores in float32; the forward pass is bfloat16 on CUDA.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.core.errors import KdsearchError
from kdsearch.core.records import EpochReport, Scores
from kdsearch.data.batches import Output, collate, epoch_batches
from kdsearch.data.tokens import TokenPool
from kdsearch.distill import checkpoint
from kdsearch.distill.checkpoint import Best, Progress
from kdsearch.distill.examples import Arrays, Examples, gather
from kdsearch.distill.live import VALIDATION, LiveTeacher, TeacherInTraining, seed_of
from kdsearch.distill.optimizer import Learner, Optimizer, Schedule, ScheduleKind
from kdsearch.distill.stage import HISTORICAL, LIVE, TEACHER, Joint, Seen, Stage, Term
from kdsearch.measure.quality import score
from kdsearch.teachers.signals import compute_logits

FloatArray = npt.NDArray[np.float32]


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
    schedule: ScheduleKind = "linear"
    """Over the rows of all stages."""
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
    teacher_scores: Scores | None = None
    """Of the jointly trained teacher after its last step; None if there is none, or if stopped."""


@dataclass(frozen=True)
class _Training:
    """What stays the same from the first step to the last."""

    module: nn.Module
    learned: nn.ModuleList
    """What terms learn for themselves."""
    teacher: TeacherInTraining | None
    optimizer: Optimizer
    settings: FitSettings
    breathe: Callable[[], None]
    should_stop: Callable[[], bool]

    @property
    def state(self) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, nn.Module]]:
        """All that changes from step to step: the module, the optimizer, and what is trained beside it."""
        beside = {"learned": self.learned, **({"teacher": self.teacher} if self.teacher else {})}
        return self.module, self.optimizer.adamw, beside


def fit(
    module: nn.Module,
    stages: Sequence[Stage],
    *,
    pools: Mapping[str, TokenPool],
    signals: Mapping[str, Arrays],
    validation: TokenPool,
    validation_signals: Arrays,
    settings: FitSettings,
    on_epoch: Callable[[EpochReport, bytes], None],
    resume: bytes | None,
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
    live: LiveTeacher | None = None,
) -> FitReport:
    """Train a module through all stages and keep its best scored epoch.

    `signals` holds each signal's arrays by pool (`TRAJECTORY`: visits first); `validation_signals` may hold
    `TEACHER` and `HISTORICAL` for agreement and coverage. `live` is asked for by joint stages and is trained.
    `on_epoch` gets each epoch's report and checkpoint; `resume` is such a checkpoint. `should_stop` is asked
    before every step: True ends the training, and what the last checkpoint has not, is lost.
    """
    training = _begin(module, stages, pools, live, settings, breathe, should_stop)
    progress = checkpoint.load(resume, *training.state) if resume else Progress()
    for stage, examples in _epochs(stages, pools, signals, settings, skip=progress.epochs_run):
        started = time.perf_counter()
        losses = _train_epoch(training, stage, examples, progress)
        if losses is None:
            return _report(progress, stopped=True)
        scored = None
        if stage.scored:
            scored = _validate(training, validation, validation_signals, progress.epochs_run + 1)
        seconds = time.perf_counter() - started
        progress = _advance(progress, stage, scored, settings, seconds=seconds)
        report = _epoch_report(stage, progress, losses, scored, seconds=seconds)
        on_epoch(report, checkpoint.dump(progress, *training.state))
    return _report(progress, stopped=False, teacher_scores=_teacher_scores(training, live))


def _begin(
    module: nn.Module,
    stages: Sequence[Stage],
    pools: Mapping[str, TokenPool],
    live: LiveTeacher | None,
    settings: FitSettings,
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
) -> _Training:
    _check(stages)
    module.to(settings.device)
    learned = nn.ModuleList(
        dict.fromkeys(term.learned for s in stages for term in s.all_terms if term.learned)
    )
    learned.to(settings.device)
    joint = stages[0].joint
    teacher = _teacher(stages[0], pools, live, settings)
    total_rows = sum(stage.epochs * stage.rows_per_epoch for stage in stages)
    optimizer = _optimizer(module, learned, teacher, joint, settings, total_rows)
    return _Training(module, learned, teacher, optimizer, settings, breathe, should_stop)


def _check(stages: Sequence[Stage]) -> None:
    if not any(stage.scored and stage.epochs for stage in stages):
        raise ValueError("no stage is scored, so that nothing could be the best")
    alone = len(stages) == 1 and len(stages[0].pools) == 1
    if not alone and any(stage.follows_training for stage in stages):
        raise ValueError("a teacher in training is for the only stage of a scheme, on one pool")


def _teacher(
    stage: Stage, pools: Mapping[str, TokenPool], live: LiveTeacher | None, settings: FitSettings
) -> TeacherInTraining | None:
    if stage.joint is None:
        return None
    if live is None:
        raise ValueError(f"stage {stage.name!r} trains a teacher, and there is none")
    name = stage.pools[0]
    return live.join(
        name,
        pools[name],
        passes=stage.joint.passes,
        num_labels=len(settings.labels),
        seed=settings.seed,
        device=settings.device,
    )


def _optimizer(
    module: nn.Module,
    learned: nn.Module,
    teacher: TeacherInTraining | None,
    joint: Joint | None,
    settings: FitSettings,
    total_rows: int,
) -> Optimizer:
    rate = joint.student_learning_rate if joint else None
    own = Schedule(learning_rate=rate or settings.learning_rate, kind=settings.schedule, rows=total_rows)
    learners = [Learner([*module.parameters(), *learned.parameters()], own)]
    if teacher is not None and joint is not None:
        kind, rows = settings.schedule, total_rows
        if joint.schedule != "student":
            kind, rows = joint.schedule, teacher.rows_to_learn
        schedule = Schedule(learning_rate=joint.learning_rate, kind=kind, rows=rows)
        learners.append(Learner(teacher.parameters(), schedule))
    return Optimizer(
        learners,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        clip=joint.clip if joint else "own",
    )


def _epochs(
    stages: Sequence[Stage],
    pools: Mapping[str, TokenPool],
    signals: Mapping[str, Arrays],
    settings: FitSettings,
    *,
    skip: int,
) -> Iterator[tuple[Stage, Examples]]:
    """Every epoch of every stage but the first `skip`, with its examples (gathered once a stage)."""
    for stage in stages:
        if skip < stage.epochs:
            examples = gather(stage, pools, signals, num_labels=len(settings.labels), device=settings.device)
            yield from ((stage, examples) for _ in range(stage.epochs - skip))
        skip = max(0, skip - stage.epochs)


def _train_epoch(
    training: _Training, stage: Stage, examples: Examples, progress: Progress
) -> dict[str, float] | None:
    """One epoch; the mean of each weighted term over its rows, or None if asked to stop."""
    settings, rows_seen = training.settings, progress.rows_seen
    torch.manual_seed(seed_of(f"{settings.seed}/{progress.epochs_run}"))
    module, _, beside = training.state
    for trained in (module, *beside.values()):
        trained.train()
    sums_K = torch.zeros(len(stage.all_terms), device=settings.device)
    batches = epoch_batches(
        examples.pool.lengths,
        batch_size=settings.batch_size,
        seed=settings.seed,
        epoch=progress.epochs_run,
        rows=stage.rows_per_epoch,
        whole_passes=stage.follows_training,
    )
    for rows in batches:
        if training.should_stop():
            return None
        training.breathe()
        losses = [
            _turn(training, examples, terms, rows, rows_seen, turn)
            for turn, terms in enumerate((stage.terms, stage.then))
            if terms
        ]
        sums_K += torch.cat(losses) * len(rows)
        rows_seen += len(rows)
    return _mean_losses(stage, sums_K, epoch=progress.epochs_run + 1)


def _turn(
    training: _Training,
    examples: Examples,
    terms: Sequence[Term],
    rows: npt.NDArray[np.int64],
    rows_seen: int,
    turn: int,
) -> Tensor:
    """One step on some rows; each weighted term."""
    needs = frozenset(name for term in terms for name in term.needs)
    seen = _forward(training, examples, needs, rows, rows_seen, turn)
    weighted_K = torch.stack([term.weight * term.loss(seen) for term in terms])
    if weighted_K.requires_grad:  # not so in a teacher's turn once it stands still
        weighted_K.sum().backward()
        training.optimizer.step(rows_seen + len(rows) / 2)
    return weighted_K.detach()


def _forward(
    training: _Training,
    examples: Examples,
    needs: frozenset[str],
    rows: npt.NDArray[np.int64],
    rows_seen: int,
    turn: int,
) -> Seen:
    settings = training.settings
    batch = collate(examples.pool, rows, pad_id=settings.pad_id, device=settings.device)
    kind = torch.device(settings.device).type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
        output: Output = training.module(batch.input_ids_BT, batch.attention_mask_BT)
    signals = {name: examples.look_up(name, batch.rows_B, rows_seen) for name in needs - {LIVE}}
    if LIVE in needs and training.teacher is not None:
        signals[LIVE] = training.teacher(rows, rows_seen, turn)
    return Seen(
        logits_BC=output.logits_BC, hidden_BD=output.hidden_BD, labels_B=batch.labels_B, signals=signals
    )


def _mean_losses(stage: Stage, sums_K: Tensor, *, epoch: int) -> dict[str, float]:
    means = {
        t.name: value / stage.rows_per_epoch
        for t, value in zip(stage.all_terms, sums_K.tolist(), strict=True)
    }
    total = sum(means.values())
    if not np.isfinite(total):
        raise KdsearchError(
            f"training diverged: the loss of epoch {epoch} is {total}", hint="lower the learning rate"
        )
    return {**means, "total": total}


def _validate(training: _Training, validation: TokenPool, signals: Arrays, epoch: int) -> Best:
    module, settings = training.module, training.settings
    scores, logits_NC = validate(
        module, validation, settings, training.breathe, signals=signals, when=f"epoch {epoch}"
    )
    state = checkpoint.state_of(module)
    return Best(epoch=epoch, scores=scores, state=state, validation_logits_NC=logits_NC)


def _teacher_scores(training: _Training, live: LiveTeacher | None) -> Scores | None:
    if training.teacher is None or live is None:
        return None
    settings = replace(training.settings, pad_id=live.pad_id)
    when = "the teacher's last step"
    return validate(live.module, live.pools[VALIDATION], settings, training.breathe, signals={}, when=when)[0]


def validate(
    module: nn.Module,
    pool: TokenPool,
    settings: FitSettings,
    breathe: Callable[[], None],
    *,
    signals: Arrays,
    when: str,
) -> tuple[Scores, FloatArray]:
    """Scores and logits of a student or teacher in evaluation mode, which it is left in."""
    logits_NC = compute_logits(module, pool, pad_id=settings.pad_id, device=settings.device, breathe=breathe)
    if not np.isfinite(logits_NC).all():
        raise KdsearchError(
            f"training diverged: the logits after {when} are not finite", hint="lower the learning rate"
        )
    scores = score(
        logits_NC,
        pool.labels_N,
        labels=settings.labels,
        objective=settings.objective,
        teacher_logits_NC=signals.get(TEACHER),
        historical_NKC=signals.get(HISTORICAL),
    )
    return scores, logits_NC


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


def _epoch_report(
    stage: Stage, progress: Progress, losses: Mapping[str, float], scored: Best | None, *, seconds: float
) -> EpochReport:
    return EpochReport(
        stage=stage.name,
        epoch=progress.epochs_run,
        rows_seen=progress.rows_seen,
        losses=losses,
        scores=scored.scores if scored else None,
        seconds=seconds,
    )


def _merit(candidate: Best, settings: FitSettings) -> tuple[float, float]:
    quality, likelihood = candidate.scores.quality, -candidate.scores.nll
    return (quality, likelihood) if settings.select == "quality" else (likelihood, quality)


def _report(progress: Progress, *, stopped: bool, teacher_scores: Scores | None = None) -> FitReport:
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
        teacher_scores=teacher_scores,
    )
