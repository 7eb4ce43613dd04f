"""One trial, from its configuration to its recorded result: measure, refuse or train, store.

The latency is known before training, so a student that cannot fit the budget costs nothing. Whatever is put
on record goes through `Delivery`: training waits for no database and no artifact store.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
import torch

from kdsearch.core.blobs import put_tree
from kdsearch.core.errors import LeaseLostError, StorageError
from kdsearch.core.records import Decision, EpochReport, Failure, Latency, Scores, TrialConfig, TrialResult
from kdsearch.distill.fit import FitReport, FitSettings, Keep, fit
from kdsearch.distill.live import LiveTeacher
from kdsearch.distill.stage import Stage
from kdsearch.measure.quality import confusion
from kdsearch.store.leases import Lease
from kdsearch.students.base import Student
from kdsearch.students.building import save_student
from kdsearch.worker import refused
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.delivery import Delivery
from kdsearch.worker.material import Material
from kdsearch.worker.memory import PeakMemory, free
from kdsearch.worker.preparing import array_bytes
from kdsearch.worker.pulse import Pulse

WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
MOST_ACCUMULATED = 2
"""A step that does not fit into the memory is taken in so many pieces, and then given up."""
Judge = Callable[[EpochReport], Decision | None]
"""Asked after every epoch but the last: a decision is put on record, and one to pause is carried out."""

log = structlog.get_logger()


def go_on(report: EpochReport) -> Decision | None:
    """The judge that lets every trial go on."""
    return None


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


def run_trial(
    material: Material, lease: Lease, pulse: Pulse, delivery: Delivery, judge: Judge = go_on
) -> None:
    """Bring one leased trial to its end, pause it, or give it back: on record when this returns.

    Where the worker is to stop, what is not on record yet is on this disk, for a later worker. What goes
    wrong with the trial is its failure. Raises LeaseLostError when another worker has it now, StorageError
    when what it needs is away for longer than `outage_s` or not to be had, torch.AcceleratorError when the
    device is lost to this process.
    """
    trial, lost = _Trial(material, lease, pulse, delivery, judge), None
    with pulse.running(lease):
        try:
            trial.run()
        except Stopped:  # before the first step, or while a teacher's training was recorded
            trial.let_go()
        except LeaseLostError:
            raise
        except StorageError:  # not the trial's fault: somebody goes on with it
            delivery.send("give_back", lease)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was is the trial's failure
            trial.fail(error)
            lost = error if isinstance(error, torch.AcceleratorError) else None
        delivery.settle()
    if lost is not None:
        raise lost
    if delivery.refused(lease):
        raise _lost(lease)


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(
        f"Worker {lease.worker_id} no longer holds trial {lease.number} (attempt {lease.attempt})",
        hint="another worker goes on with it; nothing has to be done",
    )


class _Trial:
    """One attempt at a trial."""

    def __init__(
        self, material: Material, lease: Lease, pulse: Pulse, delivery: Delivery, judge: Judge
    ) -> None:
        self.material, self.lease, self.pulse = material, lease, pulse
        self.delivery, self.judge = delivery, judge
        self.context = material.context
        self.verdict: Decision | None = None
        self.stored_rows = -1
        self.checkpoints = Checkpoints(delivery, _owner(lease), lease.checkpoint, lease.previous_checkpoint)

    def run(self) -> None:
        """To its end, or as far as it goes now."""
        if (double := self._refused(None)) is not None:
            self._reject({}, double)
            return
        latency = self._latency()
        if latency is None:  # it waits for a worker on the study's profile
            self.delivery.send("give_back", self.lease)
            return
        limits = constraints(self.context, latency)
        vain = refused.by_limits(limits, latency, self.context.spec.objectives.latency)
        vain = vain or self._refused(latency)
        if vain is not None:
            self._reject(limits, vain)
        else:
            self._train_and_store(limits)

    def _refused(self, latency: Latency | None) -> Decision | None:
        return self.delivery.patiently(lambda: refused.by_history(self.material, self.lease, latency))

    def _train_and_store(self, limits: dict[str, float]) -> None:
        trained, said = None, ""
        try:
            trained = self._train()
        except torch.OutOfMemoryError:
            said = traceback.format_exc()
        if trained is None:  # out here: the error would keep what filled the memory
            free(self.context.options.device)
            self._out_of_memory(limits, said)
        elif trained.report.stopped:
            self.let_go()
        else:
            values = {"result": asdict(self._result(trained)), "constraints": limits}
            self.delivery.send("complete", self.lease, values, removes=self.checkpoints.kept)

    def fail(self, error: Exception) -> None:
        """The trial ends with an error."""
        failure = Failure(
            kind="exception", message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()
        )
        log.error("trial failed", trial=self.lease.number, error=failure.message)
        values = {"failure": asdict(failure)}
        self.delivery.send("failed", self.lease, values, removes=self.checkpoints.kept)

    # ---------------------------------------------------------------- before training

    def _latency(self) -> Latency | None:
        if self.lease.latency is not None:
            return self.lease.latency
        latency = self.delivery.patiently(lambda: self.material.latency(self.lease.config))
        if latency is not None:
            self.delivery.send("latency", self.lease, {"latency": latency.to_json()})
        return latency

    def _reject(self, limits: dict[str, float], decision: Decision) -> None:
        values = {"constraints": limits, "decision": asdict(decision)}
        self.delivery.send("rejected", self.lease, values, removes=self.checkpoints.kept)

    # ---------------------------------------------------------------- training

    def _train(self) -> _Trained:
        material, config, device = self.material, self.lease.config, self.context.options.device
        peak = PeakMemory(device)
        student, stages, live = self.delivery.patiently(self._what_to_train)
        resume = self.delivery.patiently(self.checkpoints.read)
        with self.context.lock.training() as let_measure:

            def breathe() -> None:
                self.context.progress.step()
                peak.sample()
                let_measure()

            recorded = material.recorded(stages, config.seed, breathe=breathe, should_stop=self._should_stop)
            pools, signals = material.read(config).pools, material.signals(stages, recorded)
            report = fit(
                student,
                stages,
                pools=pools,
                signals=signals,
                validation=pools["validation"],
                validation_signals=material.validation_signals,
                settings=settings_of(material, config, accumulate=self.lease.accumulate),
                on_epoch=self._finished_epoch,
                resume=resume,
                breathe=breathe,
                should_stop=self._should_stop,
                live=live,
                keep=Keep(every_s=self.context.options.checkpoint_s, put=self._keep),
            )
        teacher = recorded.scores if recorded is not None else report.teacher_scores
        return _Trained(student, report, teacher, peak.megabytes)

    def _what_to_train(self) -> tuple[Student, tuple[Stage, ...], LiveTeacher | None]:
        """Read from the artifact store once per worker, and again after it was away."""
        material, config = self.material, self.lease.config
        student = material.student(config).to(self.context.options.device)
        stages = material.stages(config, student)
        material.fetch(stages)
        return student, stages, material.live_teacher(config, stages)

    def _should_stop(self) -> bool:
        return (
            self.context.should_stop()
            or self.verdict is not None
            or self._out_of_time()
            or self.delivery.broken
            or self._is_lost()
        )

    def _out_of_time(self) -> bool:
        """Finalists are trained on top of the study's hours."""
        return self.pulse.out_of_time and not self.lease.repeat

    def _is_lost(self) -> bool:
        return self.pulse.lost or self.delivery.refused(self.lease)

    def _finished_epoch(self, report: EpochReport, state: bytes) -> None:
        sha256 = self.checkpoints.put(state)
        self._send_checkpoint("epoch", sha256, {"report": asdict(report)})
        self.stored_rows = report.rows_seen
        if report.epoch < self.lease.config.epochs:
            self._judge(report)

    def _judge(self, report: EpochReport) -> None:
        try:
            decision = self.judge(report)
        except StorageError as error:  # it goes on until the next rung
            log.warning("not judged", trial=self.lease.number, epoch=report.epoch, error=error.what)
            return
        if decision is not None and decision.action == "pause":
            self.verdict = decision
        elif decision is not None:
            self.delivery.send("decision", self.lease, {"decision": asdict(decision)})

    def _keep(self, state: bytes, progress: Any) -> None:
        """A checkpoint in the middle of an epoch; none where the one at its beginning is the same."""
        if progress.rows_seen == self.stored_rows or self._is_lost():
            return
        self.stored_rows = progress.rows_seen
        sha256 = self.checkpoints.put(state)
        self._send_checkpoint("checkpoint", sha256, {"epochs_run": progress.epochs_run})

    def _send_checkpoint(self, kind: str, sha256: str, values: dict[str, Any]) -> None:
        removes = self.checkpoints.followed_by(sha256)
        values = {**values, "checkpoint": sha256, "previous": self.checkpoints.previous}
        self.delivery.send(kind, self.lease, values, removes=removes)

    # ---------------------------------------------------------------- after training

    def let_go(self) -> None:
        """Training stopped before its end, with its checkpoint: why decides where the trial goes."""
        if self._is_lost():
            raise _lost(self.lease)
        if self.verdict is not None:
            self.delivery.send("pause", self.lease, {"decision": asdict(self.verdict)})
        elif self._out_of_time():
            spent = Decision(action="pause", rule="budget", reason="the study has spent its hours")
            self.delivery.send("pause", self.lease, {"decision": asdict(spent)})
        else:
            self.delivery.send("give_back", self.lease)

    def _out_of_memory(self, limits: dict[str, float], said: str) -> None:
        device, tried = self.context.options.device, self.lease.accumulate
        inputs: dict[str, float | int | str | None] = {
            "device": device,
            "batch_size": self.lease.config.batch_size,
            "accumulate": tried,
        }
        full = f"a batch does not fit into the memory of {device}"
        if tried >= MOST_ACCUMULATED:
            reason = f"{full}, in {tried} pieces neither"
            too_large = Decision(action="reject", rule="out_of_memory", reason=reason, inputs=inputs)
            self._reject({**limits, "memory": 1.0}, too_large)
            return
        reason = f"{full}: once more in {MOST_ACCUMULATED} pieces"
        again = Decision(action="retry", rule="out_of_memory", reason=reason, inputs=inputs)
        values = {"decision": asdict(again), "accumulate": MOST_ACCUMULATED, "traceback": said}
        self.delivery.send("retry_smaller", self.lease, values)

    def _result(self, trained: _Trained) -> TrialResult:
        student, report = trained.student, trained.report
        assert report.best_scores is not None, "a training that was not stopped has scored an epoch"
        student.load_state_dict(report.best_state)
        with TemporaryDirectory(prefix="kdsearch-student-") as folder:
            save_student(student.cpu(), Path(folder), self.material.prepared.labels)
            artifact = put_tree(self.delivery, Path(folder))
        return TrialResult(
            scores=report.best_scores,
            best_epoch=report.best_epoch,
            epochs_run=report.epochs_run,
            rows_seen=report.rows_seen,
            train_seconds=report.seconds,
            artifact=artifact,
            validation_logits=self.delivery.put(array_bytes(report.validation_logits_NC)),
            teacher=trained.teacher,
            peak_memory_mb=trained.peak_memory_mb,
            confusion=confusion(report.validation_logits_NC, self.material.validation_labels),
        )


def _owner(lease: Lease) -> str:
    """Whose checkpoints these are."""
    repeat = f" repeat {lease.repeat}" if lease.repeat else ""
    return f"study {lease.study_id} trial {lease.number}{repeat}"


def settings_of(material: Material, config: TrialConfig, *, accumulate: int = 1) -> FitSettings:
    """How a configuration of the study is trained."""
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
        accumulate=accumulate,
    )
