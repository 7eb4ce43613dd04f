"""One trial, from its configuration to its recorded result: measure, refuse or train, store.

The latency is known before training, so a student that cannot fit the budget costs nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from kdsearch.core.blobs import get_tree, put_tree
from kdsearch.core.records import EpochReport, Latency, TrialConfig, TrialResult
from kdsearch.data.dataset import load_saved
from kdsearch.data.prepared import Prepared
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.fit import FitReport, FitSettings, fit
from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import Setting
from kdsearch.store import leases
from kdsearch.store.leases import Lease
from kdsearch.students.base import InputShape, Student
from kdsearch.students.building import architecture_key, build_student, save_student
from kdsearch.teachers import source
from kdsearch.worker import measuring
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.prepare import TRAINING_POOLS, array_bytes
from kdsearch.worker.pulse import Pulse

FloatArray = npt.NDArray[np.float32]
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Material:
    """What every trial of a study trains on, loaded once per worker."""

    context: WorkerContext
    prepared: Prepared
    pools: dict[str, TokenPool] = field(init=False)
    logits: dict[str, FloatArray] = field(init=False)
    id_table: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        blobs, stored = self.context.store.blobs, self.prepared.pools
        names = [name for name in stored if name != "test"]
        pools = {name: TokenPool.load(blobs.open(stored[name].tokens)) for name in names}
        logits = {n: np.load(blobs.open(sha), mmap_mode="r") for n in names if (sha := stored[n].logits)}
        object.__setattr__(self, "pools", pools)
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "id_table", np.load(blobs.open(self.prepared.id_table)))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer, which every student uses."""
        with tempfile.TemporaryDirectory(prefix="kdsearch-tokenizer-") as folder:
            return source.load_tokenizer(
                get_tree(self.context.store.blobs, self.prepared.tokenizer, Path(folder))
            )

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Validation texts: the queries that latency is measured with."""
        dataset = load_saved(self.context.store.blobs, self.context.inputs.dataset)
        return dataset.pools["validation"].texts

    @property
    def training_pools(self) -> tuple[str, ...]:
        """Pools that a scheme may train on."""
        return tuple(name for name in TRAINING_POOLS if name in self.pools)

    @property
    def shape(self) -> InputShape:
        """What a student is built for."""
        prepared = self.prepared
        return InputShape(
            vocab_size=prepared.vocab_size,
            num_tokens=prepared.num_tokens,
            num_labels=len(prepared.labels),
            max_length=prepared.max_length,
            pad_id=prepared.pad_id,
        )

    def architecture(self, config: TrialConfig) -> str:
        """Trials with equal architectures share a latency figure."""
        return architecture_key(config.student, config.student_params, self.shape)

    def student(self, config: TrialConfig) -> Student:
        """The untrained student; equal seeds give equal weights."""
        return build_student(
            config.student, config.student_params, self.shape, self.id_table, seed=config.seed
        )

    def figure_key(self, architecture: str) -> str:
        """Where the latency of an architecture is cached."""
        return measuring.figure_key(
            architecture,
            self.prepared.profile,
            self.texts,
            max_length=self.prepared.max_length,
            tokenizer=self.prepared.tokenizer,
            protocol=self.context.spec.latency,
        )

    def latency(self, config: TrialConfig) -> Latency | None:
        """Of the untrained student: weights do not change it.

        None where nobody measured it yet and this machine may not: its figures are of another profile.
        """
        key = self.figure_key(self.architecture(config))
        if not measuring.can_measure(self.context, self.prepared):
            return measuring.cached_figure(self.context, key)
        return measuring.measure(
            self.context,
            self.student(config),
            key=key,
            texts=self.texts,
            encode=measuring.encoder(self.tokenizer, self.prepared.max_length),
        )


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
    student, report = _train(material, lease, pulse, checkpoints)
    if report.stopped:
        return False
    leases.finish_complete(engine, lease, _store_result(material, student, report), limits)
    checkpoints.drop()
    return True


def _train(
    material: Material, lease: Lease, pulse: Pulse, checkpoints: Checkpoints
) -> tuple[Student, FitReport]:
    context, config = material.context, lease.config

    def finished_epoch(report: EpochReport, state: bytes) -> None:
        sha256 = checkpoints.put(state)
        leases.record_epoch(context.store.engine, lease, report, sha256)
        checkpoints.supersede(sha256)

    student = material.student(config).to(context.options.device)
    names = material.training_pools
    rows = sum(len(material.pools[name]) for name in names)
    stages = build_scheme(config.scheme, config.scheme_params).stages(
        Setting(epochs=config.epochs, pools=names, rows_per_epoch=rows)
    )
    with context.lock.training() as breathe:
        report = fit(
            student,
            stages,
            pools=material.pools,
            teacher_logits=material.logits,
            validation=material.pools["validation"],
            validation_teacher_logits=material.logits.get("validation"),
            settings=_settings(material, config),
            on_epoch=finished_epoch,
            resume=checkpoints.read(),
            breathe=breathe,
            should_stop=lambda: context.should_stop() or pulse.lost,
        )
    return student, report


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
        pad_id=material.prepared.pad_id,
    )


def _store_result(material: Material, student: Student, report: FitReport) -> TrialResult:
    blobs = material.context.store.blobs
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
    )
