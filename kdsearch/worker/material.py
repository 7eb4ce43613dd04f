"""Material: what the trials of a study train on, loaded once per worker, and the students made of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from kdsearch.core.blobs import get_tree
from kdsearch.core.records import Latency, TrialConfig
from kdsearch.data.dataset import Dataset, load_saved
from kdsearch.data.prepared import (
    TEACHER_VOCABULARY,
    TRAINING_POOLS,
    Prepared,
    RecordedTrajectory,
    Vocabulary,
)
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.live import LiveTeacher
from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import HISTORICAL, LIVE, TEACHER, TRAJECTORY, Stage
from kdsearch.students.base import EncoderShape, Given, InputShape, Student
from kdsearch.students.building import architecture_key, build_student, wants
from kdsearch.students.encoder import encoder_shape
from kdsearch.teachers import source
from kdsearch.worker import measuring
from kdsearch.worker.context import WorkerContext
from kdsearch.worker.floor import trivial_quality
from kdsearch.worker.trajectory import Recording, joint_teacher
from kdsearch.worker.wanted import study_setting, table_name

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Read:
    """A vocabulary with what of it training needs."""

    stored: Vocabulary
    pools: Mapping[str, TokenPool]
    """All but the test split."""
    id_table: npt.NDArray[np.int64]
    tokenizer: PreTrainedTokenizerBase


class Material:
    """Loaded when first asked for, then kept."""

    def __init__(self, context: WorkerContext, prepared: Prepared) -> None:
        self.context, self.prepared = context, prepared
        self._blobs = context.store.blobs
        self._read = cache(self._load_vocabulary)
        self._array = cache(lambda sha256: np.load(self._blobs.open(sha256), mmap_mode="r"))
        self._encoder_shape = cache(self._load_encoder_shape)
        self._architectures: dict[tuple[object, ...], str] = {}
        self._trajectories: dict[int, RecordedTrajectory] = {}
        self._figure_key = cache(self._hash_figure)

    def _load_vocabulary(self, name: str) -> Read:
        stored = self.prepared.vocabulary(name)
        with self._laid_out(stored.tokenizer) as folder:
            tokenizer = source.load_tokenizer(folder)
        return Read(
            stored,
            pools={
                pool: TokenPool.load(self._blobs.open(tokens))
                for pool, tokens in stored.tokens.items()
                if pool != "test"
            },
            id_table=np.load(self._blobs.open(stored.id_table)),
            tokenizer=tokenizer,
        )

    @contextmanager
    def _laid_out(self, tree: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="kdsearch-tree-") as folder:
            yield get_tree(self._blobs, tree, Path(folder))

    @cached_property
    def _dataset(self) -> Dataset:
        return load_saved(self._blobs, self.context.inputs.dataset)

    @property
    def texts(self) -> tuple[str, ...]:
        """Validation texts: the queries that latency is measured with."""
        return self._dataset.pools["validation"].texts

    def read(self, config: TrialConfig) -> Read:
        """The texts as the student of a trial reads them."""
        return self._read(wants(config.student, config.student_params).vocabulary)

    @property
    def validation_labels(self) -> npt.NDArray[np.int64]:
        """What everything is scored on."""
        return self._read(TEACHER_VOCABULARY).pools["validation"].labels_N

    @cached_property
    def quality_floor(self) -> float:
        """A student below it is worth nothing: the study file's, or that of one that learned nothing."""
        given = self.context.spec.search.quality_floor
        if given is not None:
            return given
        return trivial_quality(
            self.validation_labels, self.prepared.labels, self.context.spec.objectives.quality
        )

    # ---------------------------------------------------------------- students

    def shape(self, config: TrialConfig) -> InputShape:
        """What the student of a trial is built for."""
        wanted, stored = wants(config.student, config.student_params), self.read(config).stored
        table = table_name(wanted)
        return InputShape(
            vocab_size=stored.vocab_size,
            num_tokens=stored.num_tokens,
            num_labels=len(self.prepared.labels),
            max_length=self.prepared.max_length,
            pad_id=stored.pad_id,
            embedding_width=self._array(self.prepared.tables[table]).shape[1] if table else 0,
            encoder=self._encoder_shape(self._encoder(wanted.encoder)) if wanted.encoder else None,
        )

    def _encoder(self, origin: str) -> str:
        """Tree of the encoder that a student begins with: as it was before it saw a label of the study."""
        tree = self.prepared.teacher_start if origin == TEACHER_VOCABULARY else self.prepared.encoder
        assert tree is not None, f"a student wants the encoder {origin!r}, which was not prepared"
        return tree

    def _load_encoder_shape(self, tree: str) -> EncoderShape:
        with self._laid_out(tree) as folder:
            return encoder_shape(folder)

    def architecture(self, config: TrialConfig) -> str:
        """Trials with equal architectures share a latency figure."""
        asked = (config.student, *sorted(config.student_params.items()))
        if asked not in self._architectures:  # a sampler asks it of every candidate
            self._architectures[asked] = architecture_key(
                config.student, config.student_params, self.shape(config)
            )
        return self._architectures[asked]

    def student(self, config: TrialConfig) -> Student:
        """The untrained student with what it begins with; equal seeds give equal weights."""
        wanted = wants(config.student, config.student_params)
        table = table_name(wanted)
        embedding_VE = None if table is None else np.array(self._array(self.prepared.tables[table]))
        if not wanted.encoder:
            return self._build(config, Given(embedding_VE=embedding_VE))
        with self._laid_out(self._encoder(wanted.encoder)) as folder:
            return self._build(config, Given(embedding_VE=embedding_VE, encoder=folder))

    def _build(self, config: TrialConfig, given: Given) -> Student:
        return build_student(
            config.student,
            config.student_params,
            self.shape(config),
            self.read(config).id_table,
            seed=config.seed,
            given=given,
        )

    # ---------------------------------------------------------------- training

    def stages(self, config: TrialConfig, student: Student) -> tuple[Stage, ...]:
        """What the training of a trial runs."""
        facts, prepared = self.context.inputs.facts, self.prepared
        setting = study_setting(
            self.context.spec,
            {name: prepared.pools[name].num_rows for name in TRAINING_POOLS if name in prepared.pools},
            anchors=len(prepared.anchors),
            teacher_width=facts.teacher_width if facts else None,
        )
        own = replace(setting, epochs=config.epochs, student_width=student.width, seed=config.seed)
        return build_scheme(config.scheme, config.scheme_params).stages(own)

    def recorded(
        self,
        stages: Sequence[Stage],
        seed: int,
        *,
        breathe: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> RecordedTrajectory | None:
        """The teacher in training that the stages replay; None where they replay none.

        That of the study's seed was prepared; for a further seed it is recorded now, by whoever needs it
        first. Raises Stopped.
        """
        if not any(TRAJECTORY in stage.needs for stage in stages):
            return None
        if seed == self.context.spec.training.seed:
            return self.prepared.trajectory
        if seed not in self._trajectories:
            assert self.prepared.teacher_start is not None, "a trajectory begins with a teacher"
            with self._laid_out(self.prepared.teacher_start) as folder:
                recording = Recording(
                    self.context,
                    self._dataset.labels,
                    self._dataset.fingerprint,
                    self._read(TEACHER_VOCABULARY).pools,
                    folder,
                    seed,
                )
                found = recording.found() or recording.run(breathe=breathe, should_stop=should_stop)
            self._trajectories[seed] = found
        return self._trajectories[seed]

    def fetch(self, stages: Sequence[Stage]) -> None:
        """Everything that was prepared for the stages, to where the worker reads it."""
        self.signals(stages, self.prepared.trajectory)

    def signals(
        self, stages: Sequence[Stage], recorded: RecordedTrajectory | None = None
    ) -> dict[str, dict[str, Array]]:
        """Every recorded signal that the stages need, of the pools that they train on."""
        pools: dict[str, set[str]] = {}
        for stage in stages:
            for signal in stage.needs - {LIVE}:
                pools.setdefault(signal, set()).update(stage.pools)
        return {
            signal: {name: self._signal(signal, name, recorded) for name in names}
            for signal, names in pools.items()
        }

    def _signal(self, signal: str, pool: str, recorded: RecordedTrajectory | None) -> Array:
        prepared = self.prepared
        if signal == TEACHER:
            sha256 = prepared.pools[pool].logits
        elif signal == TRAJECTORY:
            sha256 = None if recorded is None else recorded.logits
        else:
            sha256 = prepared.signals.get(signal, {}).get(pool)
        assert sha256 is not None, f"signal {signal!r} of {pool!r} was not prepared"
        found: Array = self._array(sha256)
        return found

    @cached_property
    def validation_signals(self) -> dict[str, Array]:
        """What agreement and coverage are of."""
        named = {
            TEACHER: self.prepared.pools["validation"].logits,
            HISTORICAL: self.prepared.signals.get(HISTORICAL, {}).get("validation"),
        }
        return {signal: self._array(sha256) for signal, sha256 in named.items() if sha256 is not None}

    def live_teacher(self, config: TrialConfig, stages: Sequence[Stage]) -> LiveTeacher | None:
        """A fresh teacher to be trained beside the student; None where no stage asks for one."""
        if all(stage.joint is None for stage in stages):
            return None
        assert self.prepared.teacher_start is not None, "a scheme trains a teacher, which was not prepared"
        with self._laid_out(self.prepared.teacher_start) as folder:
            module = joint_teacher(self.context, self.prepared.labels, folder, seed=config.seed)
        return LiveTeacher(module=module, pools=self._read(TEACHER_VOCABULARY).pools, pad_id=module.pad_id)

    # ---------------------------------------------------------------- latency

    def figure_key(self, config: TrialConfig) -> str:
        """Where the latency of a trial's architecture is cached."""
        return self._figure_key(self.architecture(config), self.read(config).stored.tokenizer)

    def _hash_figure(self, architecture: str, tokenizer: str) -> str:
        return measuring.figure_key(
            architecture,
            self.prepared.profile,
            self.texts,
            max_length=self.prepared.max_length,
            tokenizer=tokenizer,
            protocol=self.context.spec.latency,
        )

    @cached_property
    def figures(self) -> measuring.Figures:
        """Latencies that need no measuring."""
        return measuring.Figures(self.context, self.figure_key)

    def latency(self, config: TrialConfig) -> Latency | None:
        """Of the untrained student: weights do not change it.

        None where nobody measured it yet and this machine may not: its figures are of another profile.
        """
        key = self.figure_key(config)
        if not measuring.can_measure(self.context, self.prepared):
            return measuring.cached_figure(self.context, key)
        return measuring.measure(
            self.context,
            self.student(config),
            key=key,
            texts=self.texts,
            encode=measuring.encoder(self.read(config).tokenizer, self.prepared.max_length),
        )
