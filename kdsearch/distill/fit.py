"""The one training loop: stages and epochs, read from top to bottom; what an epoch does is `distill.epoch`.

Notable:
- Students and teachers alike: anything that maps (input_ids, attention_mask) to `Output`.
- Same settings, same weights: order of data and dropout depend on (seed, epoch) alone.
- A checkpoint after every epoch, and between steps where asked for; resumed from any of them equals
  uninterrupted, bit for bit on the CPU.
- Losses and scores in float32; the forward pass is bfloat16 on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from kdsearch.core.errors import KdsearchError
from kdsearch.core.records import EpochReport, Scores
from kdsearch.data.tokens import TokenPool
from kdsearch.distill import checkpoint
from kdsearch.distill.checkpoint import Best, Progress
from kdsearch.distill.epoch import AskedToStop, Epoch, Keep, Training
from kdsearch.distill.examples import Arrays, Examples, gather
from kdsearch.distill.live import VALIDATION, LiveTeacher, TeacherInTraining
from kdsearch.distill.optimizer import Learner, Optimizer, Schedule
from kdsearch.distill.settings import FitSettings
from kdsearch.distill.stage import HISTORICAL, TEACHER, Joint, Stage
from kdsearch.measure.quality import score
from kdsearch.teachers.signals import compute_logits

__all__ = ["FitReport", "FitSettings", "Keep", "fit", "validate"]

FloatArray = npt.NDArray[np.float32]


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
    """In these epochs."""
    validation_logits_NC: FloatArray = field(repr=False)
    """Of the best epoch, in the validation pool's order."""
    stopped: bool
    seconds: float
    teacher_scores: Scores | None = None
    """Of the jointly trained teacher after its last step; None if there is none, or if stopped."""


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
    keep: Keep | None = None,
) -> FitReport:
    """Train a module through all stages and keep its best scored epoch.

    `signals` holds each signal's arrays by pool (`TRAJECTORY`: visits first); `validation_signals` may hold
    `TEACHER` and `HISTORICAL` for agreement and coverage. `live` is asked for by joint stages and is trained.
    `on_epoch` gets each epoch's report and checkpoint, `keep` those in between; `resume` is any of them.
    `breathe` is called before every forward pass. `should_stop` is asked before every step, and with `keep`
    before every batch of a validation: True ends the training. Without `keep` what the last checkpoint has
    not, is lost then; with it, nothing is.
    """
    training = _begin(module, stages, pools, live, settings, breathe, should_stop, keep)
    progress = checkpoint.load(resume, *training.state) if resume else Progress()
    try:
        for stage, examples in _epochs(stages, pools, signals, settings, skip=progress.epochs_run):
            epoch = Epoch(training, stage, examples, progress)
            losses = epoch.train()
            scored = _validate(training, epoch, validation, validation_signals) if stage.scored else None
            seconds = epoch.seconds
            progress = _advance(progress, stage, scored, settings, seconds=seconds)
            report = _epoch_report(stage, progress, losses, scored, seconds=seconds)
            on_epoch(report, checkpoint.dump(progress, *training.state))
        return _report(progress, stopped=False, teacher_scores=_teacher_scores(training, live))
    except AskedToStop:
        return _report(progress, stopped=True)


def _begin(
    module: nn.Module,
    stages: Sequence[Stage],
    pools: Mapping[str, TokenPool],
    live: LiveTeacher | None,
    settings: FitSettings,
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
    keep: Keep | None,
) -> Training:
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
    return Training(module, learned, teacher, optimizer, settings, breathe, should_stop, keep)


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


def _validate(training: Training, epoch: Epoch, validation: TokenPool, signals: Arrays) -> Best:
    module, number = training.module, epoch.progress.epochs_run + 1
    scores, logits_NC = validate(
        module, validation, training.settings, epoch.breathe, signals=signals, when=f"epoch {number}"
    )
    state = checkpoint.state_of(module)
    return Best(epoch=number, scores=scores, state=state, validation_logits_NC=logits_NC)


def _teacher_scores(training: Training, live: LiveTeacher | None) -> Scores | None:
    """Raises AskedToStop with `keep`: all steps are on record then, and only this is done again."""
    if training.teacher is None or live is None:
        return None

    def breathe() -> None:
        if training.keep is not None and training.should_stop():
            raise AskedToStop
        training.breathe()

    settings = replace(training.settings, pad_id=live.pad_id)
    when = "the teacher's last step"
    return validate(live.module, live.pools[VALIDATION], settings, breathe, signals={}, when=when)[0]


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
        rows_seen=progress.rows_finished + stage.rows_per_epoch,
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
        rows_seen=progress.rows_finished,
        validation_logits_NC=best.validation_logits_NC if best else np.empty((0, 0), np.float32),
        stopped=stopped,
        seconds=progress.seconds,
        teacher_scores=teacher_scores,
    )
