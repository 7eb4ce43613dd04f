"""One trial, from its configuration to its recorded result: measure, refuse or train, store.

The latency is known before training, so a student that cannot fit the budget costs nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdsearch.core.blobs import put_tree
from kdsearch.core.records import EpochReport, Latency, Scores, TrialConfig, TrialResult
from kdsearch.distill.fit import FitReport, FitSettings, fit
from kdsearch.distill.stage import TRAJECTORY
from kdsearch.store import leases
from kdsearch.store.leases import Lease
from kdsearch.students.base import Student
from kdsearch.students.building import save_student
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.material import Material
from kdsearch.worker.memory import PeakMemory
from kdsearch.worker.preparing import array_bytes
from kdsearch.worker.pulse import Pulse

WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0


@dataclass(frozen=True)
class _Trained:
    """What training a trial gave."""

    student: Student
    report: FitReport
    teacher: Scores | None
    """Of the teacher in training that the student followed, live or recorded."""
    peak_memory_mb: float


def constraints(context: WorkerContext, latency: Latency) -> dict[str, float]:
    """How far above each ceiling of the study (at most 0 is feasible)."""
    limits, found = context.spec.constraints, {}
    if limits.latency_ms is not None:
        found["latency_ms"] = latency.at(context.spec.objectives.latency) - limits.latency_ms.max
    if limits.size_mb is not None:
        found["size_mb"] = latency.size_mb - limits.size_mb.max
    return found


def run_trial(material: Material, lease: Lease, pulse: Pulse) -> None:
    """Bring one leased trial to its end, or give it back: to the next worker, or to one that may measure.

    Raises LeaseLostError when another worker has it now.
    """
    try:
        ended = _measure_and_train(material, lease, pulse)
    except Stopped:
        ended = False
    if not ended:
        leases.give_back(material.context.store.engine, lease)


def _measure_and_train(material: Material, lease: Lease, pulse: Pulse) -> bool:
    """Whether the trial has come to its end."""
    context = material.context
    engine = context.store.engine
    latency = lease.latency
    if latency is None:
        latency = material.latency(lease.config)
        if latency is None:  # it waits for a worker on the study's profile
            return False
        leases.record_latency(engine, lease, latency)
    limits = constraints(context, latency)
    if any(excess > 0 for excess in limits.values()):
        leases.finish_rejected(engine, lease, limits)
        return True
    owner = f"study {context.study.id} trial {lease.number}"
    checkpoints = Checkpoints(context.store.blobs, owner, lease.checkpoint)
    trained = _train(material, lease, pulse, checkpoints)
    if trained.report.stopped:
        return False
    leases.finish_complete(engine, lease, _store_result(material, trained), limits)
    checkpoints.drop()
    return True


def _train(material: Material, lease: Lease, pulse: Pulse, checkpoints: Checkpoints) -> _Trained:
    context, config = material.context, lease.config
    peak = PeakMemory(context.options.device)
    student = material.student(config).to(context.options.device)
    stages = material.stages(config, student)
    pools, signals = material.read(config).pools, material.signals(stages)
    with context.lock.training() as let_measure:

        def breathe() -> None:
            peak.sample()
            let_measure()

        report = fit(
            student,
            stages,
            pools=pools,
            signals=signals,
            validation=pools["validation"],
            validation_signals=material.validation_signals,
            settings=_settings(material, config),
            on_epoch=_recorder(context, lease, checkpoints),
            resume=checkpoints.read(),
            breathe=breathe,
            should_stop=lambda: context.should_stop() or pulse.lost,
            live=material.live_teacher(config, stages),
        )
    recorded = material.prepared.trajectory if TRAJECTORY in signals else None
    teacher = recorded.scores if recorded is not None else report.teacher_scores
    return _Trained(student, report, teacher, peak.megabytes)


def _recorder(
    context: WorkerContext, lease: Lease, checkpoints: Checkpoints
) -> Callable[[EpochReport, bytes], None]:
    """Puts each epoch on record; of the checkpoints, which a joint teacher makes large, the newest stays."""

    def finished_epoch(report: EpochReport, state: bytes) -> None:
        sha256 = checkpoints.put(state)
        leases.record_epoch(context.store.engine, lease, report, sha256)
        checkpoints.supersede(sha256)

    return finished_epoch


def _settings(material: Material, config: TrialConfig) -> FitSettings:
    return FitSettings(
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        seed=config.seed,
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
        schedule="constant",
        select="quality",
        objective=material.context.spec.objectives.quality,
        labels=material.prepared.labels,
        device=material.context.options.device,
        pad_id=material.read(config).stored.pad_id,
    )


def _store_result(material: Material, trained: _Trained) -> TrialResult:
    blobs, student, report = material.context.store.blobs, trained.student, trained.report
    assert report.best_scores is not None, "a training that was not stopped has scored an epoch"
    student.load_state_dict(report.best_state)
    with tempfile.TemporaryDirectory(prefix="kdsearch-student-") as folder:
        save_student(student.cpu(), Path(folder), material.prepared.labels)
        artifact = put_tree(blobs, Path(folder))
    return TrialResult(
        scores=report.best_scores,
        best_epoch=report.best_epoch,
        epochs_run=report.epochs_run,
        rows_seen=report.rows_seen,
        train_seconds=report.seconds,
        artifact=artifact,
        validation_logits=blobs.put(array_bytes(report.validation_logits_NC)),
        teacher=trained.teacher,
        peak_memory_mb=trained.peak_memory_mb,
    )
