"""A study small enough to run to its end within seconds, on a real Postgres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from kdsearch.core.records import Latency
from kdsearch.core.spec import LatencySpec, StudySpec
from kdsearch.core.specteacher import HistoricalSpec
from kdsearch.core.studyfile import StudyFile
from kdsearch.data import tokens
from kdsearch.data.dataset import NO_LABEL, Dataset, Pool
from kdsearch.data.inputs import Inputs
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.profile import hardware_profile
from kdsearch.search import check
from kdsearch.store.connect import Store
from kdsearch.store.studies import StudyRecord
from kdsearch.teachers import source
from kdsearch.worker import measuring
from kdsearch.worker import teacher as teacher_module
from kdsearch.worker.context import WorkerContext, WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work
from kdsearch.worker.teacher import TeacherTrees

TINY = """\
version: 1
name: {name}
data:
  train: synthetic://spam_opinions?rows=160&seed=1
  validation: synthetic://spam_opinions?rows=80&seed=2
  test: synthetic://spam_opinions?rows=80&seed=3
teacher:
  build: {{layers: 1, hidden: 16, heads: 2, vocab_size: 400}}
  max_length: 24
  finetune: {{epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 2}}
constraints:
  latency_ms: {{max: {max_ms}}}
students:
  - type: textcnn
    filters: [8]
    embed_dim: [8]
    kernel_sizes: [[2, 3]]
  - type: bag
    embed_dim: [8]
    hidden: [8]
training: {{epochs: {epochs}, batch_size: 32, seed: 5}}
latency: {{warmup: 2, min_queries: 10, min_seconds: 0}}
budget: {{trials: {trials}, failed: {failed}}}
"""


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., StudyFile]:
    """A study file with some values changed, read and checked."""

    def write(
        name: str = "tiny",
        *,
        trials: int = 5,
        epochs: int = 2,
        failed: int = 3,
        max_ms: float = 1000.0,
        replace: tuple[str, str] = ("", ""),
    ) -> StudyFile:
        path = tmp_path / f"{name}.yaml"
        text = TINY.format(name=name, trials=trials, epochs=epochs, failed=failed, max_ms=max_ms)
        path.write_text(text.replace(*replace) if replace[0] else text)
        return check.load(path, {})

    return write


@pytest.fixture
def options(tmp_path: Path) -> WorkerOptions:
    return WorkerOptions(lock_folder=tmp_path / "locks", poll_s=0.05)


@pytest.fixture
def finish(store: Store, options: WorkerOptions) -> Callable[[StudyFile], str]:
    """Create the study and work on it in this process until it is done."""

    def run(file: StudyFile) -> str:
        record = create_or_resume(store, file, on_progress=lambda _: None)
        return work(store, record.name, options=options, should_stop=lambda: False)

    return run


@pytest.fixture(autouse=True)
def instant_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency as a function of the size: measuring has tests of its own, and costs seconds."""

    def figure(
        module: nn.Module, texts: object, encode: object, spec: LatencySpec, lock: object, *, seed: int
    ) -> Latency:
        num_params = sum(p.numel() for p in module.parameters())
        ms = num_params / 1e6
        return Latency(
            p50_ms=ms,
            p90_ms=1.2 * ms,
            p99_ms=1.5 * ms,
            mean_ms=ms,
            num_queries=spec.min_queries,
            seconds=1.0,
            size_mb=4 * num_params / 1e6,
            num_params=num_params,
            tokenize_p50_ms=0.1,
            noisy=False,
            profile=hardware_profile(spec),
        )

    monkeypatch.setattr(measuring, "measure_latency", figure)


class TeacherStudy:
    """A study as far as preparing its teachers needs it: 60 texts to learn from, 30 to be scored on."""

    def __init__(
        self, store: Store, options: WorkerOptions, folder: Path, teacher: dict[str, object], unlabelled: int
    ) -> None:
        spec = StudySpec.model_validate(
            {
                "version": 1,
                "name": "teachers",
                "data": {"train": "unread", "validation": "unread"},
                "teacher": {"build": BUILD, "max_length": 12, "finetune": {**FINETUNE}, **teacher},
                "training": {"seed": 5},
            }
        )
        self.context = WorkerContext(
            store=store,
            study=cast(StudyRecord, SimpleNamespace(id=1)),
            spec=spec,
            inputs=Inputs(dataset="", teacher=None, teacher_classifies=False),
            options=options,
            worker_id="worker",
            lock=HostLock(options.lock_folder),
            should_stop=lambda: False,
        )
        texts = {
            "train": _reviews(60, 1),
            "validation": _reviews(30, 2),
            "unlabelled": _reviews(unlabelled, 3),
        }
        pools = {name: pool_of(name, found) for name, found in texts.items() if found}
        self.dataset = Dataset(("bad", "good"), pools, (), fingerprint=f"{unlabelled} unlabelled")
        self.folder = teacher_module.source_folder(self.context, self.dataset, folder)
        tokenizer = source.load_tokenizer(self.folder)
        self.pools = {name: tokens.tokenise(pool, tokenizer, 12) for name, pool in pools.items()}
        self.said: list[str] = []
        self.kept: list[str] = []

    def prepare(
        self, part: str | None = None, *, unfinished: str | None = None, epochs: int | None = None
    ) -> TeacherTrees:
        """The study's teacher, or that of a slice; with `epochs` let go after so many more of them."""
        end = None if epochs is None else len(self.kept) + epochs
        watch: dict[str, Any] = {
            "unfinished": unfinished,
            "keep": self._keep,
            "breathe": lambda: None,
            "should_stop": lambda: end is not None and len(self.kept) >= end,
        }
        common = (self.context, self.dataset, self.pools, self.folder)
        if part is None:
            return teacher_module.prepare_teacher(*common, **watch)
        return teacher_module.prepare_historical(
            *common, HistoricalSpec.model_validate({"slice": part}), **watch
        )

    def _keep(self, said: str, checkpoint: str) -> None:
        self.said.append(said)
        self.kept.append(checkpoint)


BUILD = {"layers": 1, "hidden": 16, "heads": 2, "vocab_size": 200}
FINETUNE = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 16, "anchors": 2}


def _reviews(count: int, seed: int) -> list[tuple[str, int]]:
    """Texts and labels; those of each seed have a word of their own."""
    random = np.random.default_rng(seed)
    words = [["awful", "dull", "poor"], ["great", "fresh", "fine"]]
    drawn = [
        (int(label), int(k)) for label, k in zip(random.integers(2, size=count), range(count), strict=True)
    ]
    return [(f"{words[y][k % 3]} film number {k} source{'abc'[seed - 1] * 3}", y) for y, k in drawn]


def pool_of(name: str, rows: list[tuple[str, int]]) -> Pool:
    labels = [NO_LABEL if name == "unlabelled" else label for _, label in rows]
    return Pool(name, tuple(text for text, _ in rows), np.asarray(labels, np.int64))


@pytest.fixture
def teacher_study(
    store: Store, options: WorkerOptions, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., TeacherStudy]:
    """A study whose teachers can be prepared, with some keys of `teacher` changed."""

    def make(*, unlabelled: int = 0, **teacher: object) -> TeacherStudy:
        folder = tmp_path_factory.mktemp("preparing") / "source"
        return TeacherStudy(store, options, folder, teacher, unlabelled)

    return make
