"""A teacher in training: as joint schemes begin with it, and its trajectory, recorded once and shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kdsearch.core.canonical import sha256_of
from kdsearch.core.records import EpochReport, Scores
from kdsearch.data.dataset import Dataset
from kdsearch.data.prepared import RecordedTrajectory
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.checkpoint import Progress
from kdsearch.distill.fit import FitSettings, Keep
from kdsearch.distill.trajectory import record_trajectory
from kdsearch.store import cache
from kdsearch.teachers import source
from kdsearch.teachers.source import TeacherModule
from kdsearch.worker.checkpoints import Checkpoints
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.preparing import Preparing, array_bytes

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
    """The trajectory of the labelled pool under the study's own seed, recorded while it is prepared.

    ``folder`` holds the teacher before training. Raises Stopped.
    """
    context, newest = preparing.context, preparing.unfinished(KIND)
    seed = context.spec.training.seed
    preparing.say(f"recording the trajectory of the teacher: {context.spec.teacher.joint.epochs} passes")
    checkpoints = Checkpoints(context.store.blobs, f"study {context.study.id} trajectory", newest)
    keep = preparing.keeps(KIND)

    def store(checkpoint: bytes, how_far: str) -> None:
        sha256 = checkpoints.put(checkpoint)
        keep(f"recording the trajectory of the teacher: {how_far}", sha256)
        checkpoints.supersede(sha256)

    def within_pass(checkpoint: bytes, progress: Progress) -> None:
        store(checkpoint, f"{progress.rows_seen} rows seen")

    recording = Recording(context, dataset.labels, dataset.fingerprint, pools, folder, seed)
    with preparing.training() as breathe:
        recorded = recording.found() or recording.run(
            breathe=breathe,
            should_stop=preparing.should_stop,
            resume=checkpoints.read(),
            on_pass=lambda report, checkpoint: store(checkpoint, f"pass {report.epoch} done"),
            keep=Keep(every_s=context.options.checkpoint_s, put=within_pass),
        )
    checkpoints.drop()  # only now: whoever takes over from a death before this needs it
    return recorded


def _forget(report: EpochReport, checkpoint: bytes) -> None:
    """For a recording that begins anew when its worker dies."""


@dataclass(frozen=True)
class Recording:
    """The training of a teacher with one seed: found where somebody asked for the same, else recorded."""

    context: WorkerContext
    labels: tuple[str, ...]
    data: str
    """Fingerprint of the texts and labels."""
    pools: Mapping[str, TokenPool]
    folder: Path
    """The teacher before training."""
    seed: int

    def found(self) -> RecordedTrajectory | None:
        """What is there already."""
        store = self.context.store
        for entry in cache.find(store.engine, KIND, self._key()):
            if store.blobs.exists(entry.sha256):
                scores = Scores(**entry.meta["scores"])
                return RecordedTrajectory(logits=entry.sha256, scores=scores, seconds=entry.meta["seconds"])
        return None

    def run(
        self,
        *,
        breathe: Callable[[], None],
        should_stop: Callable[[], bool],
        resume: bytes | None = None,
        on_pass: Callable[[EpochReport, bytes], None] = _forget,
        keep: Keep | None = None,
    ) -> RecordedTrajectory:
        """Record it, for whoever asks next, too. Raises Stopped."""
        module = joint_teacher(self.context, self.labels, self.folder, seed=self.seed)
        found = record_trajectory(
            module.to(self.context.options.device),
            self.pools["train"],
            joint=self.context.spec.teacher.joint,
            validation=self.pools["validation"],
            settings=self._settings(module.pad_id),
            breathe=breathe,
            should_stop=should_stop,
            resume=resume,
            on_epoch=on_pass,
            keep=keep,
        )
        if found is None:
            raise Stopped
        store = self.context.store
        sha256 = store.blobs.put(array_bytes(found.logits_ENC))
        meta = {"scores": asdict(found.teacher_scores), "seconds": found.seconds}
        cache.add(store.engine, KIND, self._key(), sha256, meta)
        return RecordedTrajectory(logits=sha256, scores=found.teacher_scores, seconds=found.seconds)

    def _settings(self, pad_id: int) -> FitSettings:
        spec = self.context.spec
        return FitSettings(
            learning_rate=spec.teacher.joint.learning_rate,
            batch_size=spec.teacher.joint.batch_size,
            seed=self.seed,
            objective=spec.objectives.quality,
            labels=self.labels,
            pad_id=pad_id,
            device=self.context.options.device,
        )

    def _key(self) -> str:
        """Two studies whose key is equal share a trajectory."""
        spec = self.context.spec.teacher
        layers = "all" if spec.finetune is None else spec.finetune.model_dump(mode="json")["layers"]
        # The same folder may begin with its own head, or with a new one.
        head = {"head": "given"} if self.context.inputs.teacher_classifies else {}
        return sha256_of(
            {
                **head,
                "format": FORMAT,
                "teacher": source.fingerprint(self.folder),
                "label_map": spec.label_map,
                "joint": spec.joint.model_dump(mode="json"),
                "layers": layers,
                "max_length": spec.max_length,
                "labels": self.labels,
                "data": self.data,
                "seed": self.seed,
                "objective": self.context.spec.objectives.quality,
            }
        )
