"""Ground: a data set prepared by an ordinary study, and what is done on it: trainings and latency figures."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.search.table import Teacher
from kdsearch.core.blobs import get_tree
from kdsearch.core.errors import KdsearchError
from kdsearch.core.facts import Facts
from kdsearch.core.records import EpochReport, Latency, TrialConfig
from kdsearch.data.prepared import Prepared
from kdsearch.distill.fit import fit
from kdsearch.measure.hostlock import lock_folder
from kdsearch.measure.latency import measure_latency
from kdsearch.search.plan import Plan
from kdsearch.store import reads
from kdsearch.store.connect import Store
from kdsearch.teachers import source
from kdsearch.worker.context import WorkerContext, WorkerOptions
from kdsearch.worker.loop import open_context
from kdsearch.worker.material import Material
from kdsearch.worker.measuring import NUM_TEXTS, encoder
from kdsearch.worker.trial import settings_of

BUSY = 0.9
"""A figure is noisy if less than this share of the time was spent on it: somebody else had the core."""


@dataclass
class Curve:
    """What a training gives, epoch by epoch: (quality, nll, seconds, CPU seconds), None where not scored."""

    epochs: list[tuple[float | None, float | None, float, float]] = field(default_factory=list)
    began: float = field(default_factory=time.process_time)

    def add(self, report: EpochReport, state: bytes) -> None:
        """The end of an epoch."""
        now = time.process_time()
        scores = report.scores
        quality, nll = (None, None) if scores is None else (scores.quality, scores.nll)
        self.epochs.append((quality, nll, report.seconds, now - self.began))
        self.began = now


@dataclass(frozen=True)
class Ground:
    """One data set."""

    data: str
    context: WorkerContext
    prepared: Prepared

    @classmethod
    def open(cls, store: Store, data: str, study: str) -> Ground:
        """Of a study that is prepared."""
        options = WorkerOptions(lock_folder=lock_folder(os.environ))
        context = open_context(store, study, options, lambda: False)
        row = reads.study(store.engine, study)
        return cls(data, context, Prepared.load(context.store.blobs, str(row.prepared)))

    @cached_property
    def material(self) -> Material:
        """What every training needs, loaded once."""
        return Material(self.context, self.prepared)

    @property
    def plan(self) -> Plan:
        """The space of the study."""
        return self.context.plan

    @property
    def facts(self) -> Facts:
        """What the study offers."""
        facts = self.context.inputs.facts
        assert facts is not None, "a study of this version has facts"
        return facts

    @property
    def rows_per_epoch(self) -> int:
        """The same for every scheme; that of the study file."""
        rows = self.context.spec.training.rows_per_epoch
        assert rows is not None, "the study file of the table says how many rows an epoch has"
        return rows

    def teacher(self) -> Teacher:
        """Its quality; figures of its latency are taken beside the students'."""
        found = reads.study(self.context.store.engine, self.context.study.name).teacher
        assert found is not None, "a prepared study has a teacher"
        return Teacher(quality=found.scores.quality, nll=found.scores.nll)

    # ---------------------------------------------------------------- training

    def train(self, config: TrialConfig) -> dict[str, Any]:
        """Train as a worker does; a training that diverges is a result as well."""
        curve, problem = Curve(), None
        with self.context.lock.training() as let_measure:
            try:
                self._fit(config, curve, let_measure)
            except KdsearchError as error:
                problem = error.what
        return {"data": self.data, "key": config.key, "epochs": curve.epochs, "problem": problem, **_now()}

    def _fit(self, config: TrialConfig, curve: Curve, breathe: Callable[[], None]) -> None:
        material = self.material
        student = material.student(config)
        stages = material.stages(config, student)
        pools = material.read(config).pools
        fit(
            student,
            stages,
            pools=pools,
            signals=material.signals(stages),
            validation=pools["validation"],
            validation_signals={},
            settings=settings_of(self.material, config),
            on_epoch=curve.add,
            resume=None,
            breathe=breathe,
            should_stop=lambda: False,
            live=material.live_teacher(config, stages),
        )

    # ---------------------------------------------------------------- latency

    def measure(self, config: TrialConfig) -> dict[str, Any]:
        """A new figure of a configuration's architecture."""
        tokenizer = self.material.read(config).tokenizer
        return self._measure(self.material.student(config), tokenizer)

    def measure_teacher(self) -> dict[str, Any]:
        """A new figure of the teacher."""
        blobs = self.context.store.blobs
        with tempfile.TemporaryDirectory(prefix="kdsearch-teacher-") as folder:
            tree = get_tree(blobs, str(self.prepared.teacher), Path(folder) / "teacher")
            words = get_tree(blobs, self.prepared.tokenizer, Path(folder) / "tokenizer")
            module = source.load_classifier(tree, self.prepared.labels)
            return self._measure(module, source.load_tokenizer(words))

    def _measure(self, module: nn.Module, tokenizer: object) -> dict[str, Any]:
        encode = encoder(tokenizer, self.prepared.max_length)
        texts, protocol = self.material.texts[:NUM_TEXTS], self.context.spec.latency
        began, began_cpu = time.perf_counter(), time.process_time()
        figure: Latency = measure_latency(module.eval(), texts, encode, protocol, self.context.lock, seed=0)
        share = (time.process_time() - began_cpu) / (time.perf_counter() - began)
        noisy = figure.noisy or share < BUSY
        return {"data": self.data, "latency": {**figure.to_json(), "noisy": noisy}, **_now()}


def _now() -> dict[str, Any]:
    """When, and how many processes wanted a core."""
    return {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}
