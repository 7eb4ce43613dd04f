"""A teacher in training: as joint schemes begin with it, and its trajectory, recorded once and shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from kdsearch.core.canonical import sha256_of
from kdsearch.core.records import EpochReport, Scores
from kdsearch.data.dataset import Dataset
from kdsearch.data.prepared import RecordedTrajectory
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.fit import FitSettings
from kdsearch.distill.trajectory import record_trajectory
from kdsearch.store import cache
from kdsearch.teachers import source
from kdsearch.teachers.source import TeacherModule
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.preparing import Preparing

KIND = "trajectory"
FORMAT = 1


def joint_teacher(
    context: WorkerContext, labels: tuple[str, ...], folder: Path, *, seed: int
) -> TeacherModule:
    """The teacher before it is trained beside a student: the given classifier, or the encoder and a new head.

    What fine-tuning would freeze is frozen here as well.
    """
    spec = context.spec.teacher
    if context.inputs.teacher_classifies:
        return source.load_classifier(folder, labels, label_map=spec.label_map)
    module = source.load_encoder_for(folder, labels, seed=seed)
    if spec.finetune is not None and spec.finetune.layers != "all":
        source.freeze_all_but_last(module, spec.finetune.layers.last)
    return module


def prepare_trajectory(
    preparing: Preparing, dataset: Dataset, pools: Mapping[str, TokenPool], folder: Path
) -> RecordedTrajectory:
    """The trajectory of the labelled pool: found where a study before asked for the same, else recorded.

    ``folder`` holds the teacher before training. Raises Stopped.
    """
    context = preparing.context
    key = _key(context, dataset, folder)
    for entry in cache.find(context.store.engine, KIND, key):
        if context.store.blobs.exists(entry.sha256):
            scores = Scores(**entry.meta["scores"])
            return RecordedTrajectory(logits=entry.sha256, scores=scores, seconds=entry.meta["seconds"])
    recording = _Recording(preparing, dataset, pools, folder)
    recorded = recording.run()
    meta = {"scores": asdict(recorded.scores), "seconds": recorded.seconds}
    cache.add(context.store.engine, KIND, key, recorded.logits, meta)
    recording.checkpoints.drop()  # only now: whoever takes over from a death before this needs it
    return recorded


def _key(context: WorkerContext, dataset: Dataset, folder: Path) -> str:
    """Two studies whose key is equal share a trajectory."""
    spec = context.spec.teacher
    layers = "all" if spec.finetune is None else spec.finetune.model_dump(mode="json")["layers"]
    # The same folder may begin with its own head, or with a new one.
    head = {"head": "given"} if context.inputs.teacher_classifies else {}
    return sha256_of(
        {
            **head,
            "format": FORMAT,
            "teacher": source.fingerprint(folder),
            "label_map": spec.label_map,
            "joint": spec.joint.model_dump(mode="json"),
            "layers": layers,
            "max_length": spec.max_length,
            "labels": dataset.labels,
            "data": dataset.fingerprint,
            "seed": context.spec.training.seed,
            "objective": context.spec.objectives.quality,
        }
    )


class _Recording:
    """One recording; whoever takes over from a dead holder goes on from its last pass."""

    def __init__(
        self, preparing: Preparing, dataset: Dataset, pools: Mapping[str, TokenPool], folder: Path
    ) -> None:
        self.preparing, self.dataset, self.pools = preparing, dataset, pools
        context = preparing.context
        seed = context.spec.training.seed
        self.module = joint_teacher(context, dataset.labels, folder, seed=seed).to(preparing.device)
        self.keep = preparing.keeps(KIND)
        owner, newest = f"study {context.study.id} trajectory", preparing.unfinished(KIND)
        self.checkpoints = Checkpoints(context.store.blobs, owner, newest)

    def run(self) -> RecordedTrajectory:
        preparing = self.preparing
        passes = preparing.context.spec.teacher.joint.epochs
        preparing.say(f"recording the trajectory of the teacher: {passes} passes")
        with preparing.training() as breathe:
            found = record_trajectory(
                self.module,
                self.pools["train"],
                joint=preparing.context.spec.teacher.joint,
                validation=self.pools["validation"],
                settings=self._settings(),
                breathe=breathe,
                should_stop=preparing.should_stop,
                resume=self.checkpoints.read(),
                on_epoch=self._finished_pass,
            )
        if found is None:
            raise Stopped
        return RecordedTrajectory(
            logits=preparing.put_array(found.logits_ENC), scores=found.teacher_scores, seconds=found.seconds
        )

    def _settings(self) -> FitSettings:
        spec = self.preparing.context.spec
        return FitSettings(
            learning_rate=spec.teacher.joint.learning_rate,
            batch_size=spec.teacher.joint.batch_size,
            seed=spec.training.seed,
            objective=spec.objectives.quality,
            labels=self.dataset.labels,
            pad_id=self.module.pad_id,
            device=self.preparing.device,
        )

    def _finished_pass(self, report: EpochReport, checkpoint: bytes) -> None:
        sha256 = self.checkpoints.put(checkpoint)
        self.keep(f"recording the trajectory of the teacher: pass {report.epoch} done", sha256)
        self.checkpoints.supersede(sha256)
