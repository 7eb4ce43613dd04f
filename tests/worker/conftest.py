"""A study small enough to run to its end within seconds, on a real Postgres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from kdsearch.core.records import Latency
from kdsearch.core.spec import LatencySpec
from kdsearch.core.studyfile import StudyFile
from kdsearch.measure.profile import hardware_profile
from kdsearch.search import check
from kdsearch.store.connect import Store
from kdsearch.worker import measuring
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

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
