"""The command line as people meet it: a process, its stdout, its stderr and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli import errors, main
from kdsearch.core.records import (
    EpochReport,
    Failure,
    HardwareProfile,
    Latency,
    Scores,
    TrialConfig,
    TrialResult,
)
from kdsearch.core.spec import StudySpec
from kdsearch.core.studyfile import spec_to_json
from kdsearch.store import leases, studies
from kdsearch.store.connect import Store
from kdsearch.store.studies import NewStudy, StudyRecord

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    def data(self, thing: str) -> Any:
        """The payload of its one JSON object, which must have this schema."""
        assert self.code == 0, self.err
        found = json.loads(self.out)
        assert set(found) == {"schema", "data"}
        assert found["schema"] == f"kdsearch.{thing}/v1"
        return found["data"]

    def error(self, code: int) -> Any:
        """The JSON error object, after this exit code."""
        assert self.code == code, self.out + self.err
        found = json.loads(self.out)
        assert found["schema"] == "kdsearch.error/v1"
        assert {"code", "message", "hint", "where"} <= set(found["error"])
        return found["error"]


Run = Callable[..., Answer]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No settings of the caller's, and a state folder that does not exist yet."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KDSEARCH_", "TYPER_", "FORCE_COLOR"))}
    return {**kept, "KDSEARCH_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


@pytest.fixture
def kdsearch(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Run `kdsearch ARGUMENTS` in the test's folder; ``storage`` comes by environment."""

    def run(*arguments: str, storage: str | None = None, **more: str) -> Answer:
        env = {**environment, **more}
        if storage is not None:
            env["KDSEARCH_STORAGE"] = storage
        ended = subprocess.run(
            [sys.executable, "-m", "kdsearch", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env,
            timeout=540,
        )
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def inside(
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """As `kdsearch`, but in this process: for what needs none of its own, and is asked many times."""
    terminated = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str, storage: str | None = None, **more: str) -> Answer:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("KDSEARCH_")]:
                patch.delenv(name)
            for name, value in {**environment, **more}.items():
                patch.setenv(name, value)
            if storage is not None:
                patch.setenv("KDSEARCH_STORAGE", storage)
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["kdsearch", *arguments])
            capsys.readouterr()
            try:
                code = errors.guarded(lambda: main.application()(prog_name="kdsearch", standalone_mode=False))
            except SystemExit as end:
                code = int(end.code or 0)
            return Answer(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, terminated)


PROFILE = HardwareProfile(
    device_model="A CPU", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="own"
)


def latency(p90_ms: float, size_mb: float = 1.0) -> Latency:
    return Latency(
        p50_ms=p90_ms * 0.9,
        p90_ms=p90_ms,
        p99_ms=p90_ms * 1.2,
        mean_ms=p90_ms,
        num_queries=200,
        seconds=1.0,
        size_mb=size_mb,
        num_params=1000,
        tokenize_p50_ms=0.05,
        noisy=False,
        profile=PROFILE,
    )


def scores(quality: float) -> Scores:
    recall = {"ham": quality, "spam": quality}
    return Scores(
        quality=quality,
        accuracy=quality,
        macro_f1=quality,
        nll=0.3,
        recall=recall,
        agreement=0.9,
        coverage=quality - 0.025,
    )


def new_study(store: Store, name: str) -> StudyRecord:
    """A study of four kinds of student, 8 trials, latency up to 10 ms."""
    spec = StudySpec.model_validate(
        {
            "version": 1,
            "name": name,
            "data": {"train": "train.csv", "validation": "validation.csv"},
            "teacher": {"model": "teacher"},
            "constraints": {"latency_ms": {"max": 10.0}},
            "objectives": {"quality": "f1:spam"},
            "budget": {"trials": 8},
        }
    )
    return studies.create_study(
        store.engine,
        NewStudy(
            name=name,
            optuna_name=name,
            spec_text=f"version: 1\nname: {name}\n",
            spec_json=spec_to_json(spec),
            spec_sha256="0" * 64,
            dataset_sha256="1" * 64,
            data_fingerprint="2" * 64,
            artifacts_url=store.artifacts_url,
            budget=spec.budget,
        ),
    )


CONFIGS = (
    ("textcnn", "none", {"kernel_sizes": (2, 3), "filters": 64}, {}),
    ("textcnn", "offline", {"kernel_sizes": (2, 3, 4), "filters": 128}, {"lambda": 0.75, "loss": "kl"}),
    ("bag", "offline", {"embed_dim": 32}, {"lambda": 0.5, "loss": "mse"}),
    ("bilstm", "none", {"hidden": 64}, {}),
    ("bert_small", "none", {"layers": 4}, {}),
    ("textcnn", "none", {"kernel_sizes": (3,), "filters": 32}, {}),
    ("bilstm", "offline", {"hidden": 128}, {"lambda": 0.9, "loss": "kl"}),
)


def leased(store: Store, study_id: int, number: int) -> leases.Lease:
    """Trial ``number`` of CONFIGS, running."""
    student, scheme, student_params, scheme_params = CONFIGS[number]
    config = TrialConfig(
        student=student,
        student_params=student_params,
        scheme=scheme,
        scheme_params=scheme_params,
        learning_rate=1e-3,
        batch_size=32,
        epochs=6,
        seed=17,
    )
    with leases.study_turn(store.engine, study_id) as connection:
        return leases.insert_running(
            connection,
            study_id,
            number=number,
            optuna_trial_id=number,
            config=config,
            architecture_key=f"{number}" * 64,
            worker_id="host-1",
            ttl_s=600.0,
        )


def complete(store: Store, lease: leases.Lease, quality: float, p90_ms: float, size_mb: float) -> None:
    leases.record_latency(store.engine, lease, latency(p90_ms, size_mb))
    result = TrialResult(
        scores=scores(quality),
        best_epoch=5,
        epochs_run=6,
        rows_seen=6000,
        train_seconds=12.5,
        artifact="a" * 64,
        validation_logits="b" * 64,
        teacher=scores(0.97) if lease.config.scheme == "offline" else None,
        peak_memory_mb=1234.5,
    )
    leases.finish_complete(store.engine, lease, result, {"latency_ms": p90_ms - 10.0})


@pytest.fixture
def filled(store: Store) -> str:
    """The URL of a database with study `opinions`.

    Trials 0 to 3 are complete with the front 2, 0, 1 (3 is dominated), 4 is rejected, 5 failed, 6 runs.
    """
    study = new_study(store, "opinions")
    figures = ((0.90, 2.0, 1.5), (0.95, 2.5, 3.0), (0.85, 0.125, 0.5), (0.80, 3.0, 2.0))
    for number, (quality, p90_ms, size_mb) in enumerate(figures):
        complete(store, leased(store, study.id, number), quality, p90_ms, size_mb)
    slow = leased(store, study.id, 4)
    leases.record_latency(store.engine, slow, latency(30.0))
    leases.finish_rejected(store.engine, slow, {"latency_ms": 20.0})
    broken = Failure(kind="exception", message="ValueError: it broke", traceback="Traceback: it broke here")
    leases.finish_failed(store.engine, leased(store, study.id, 5), broken)
    running = leased(store, study.id, 6)
    for epoch in (1, 2):
        report = EpochReport(
            stage="distil",
            epoch=epoch,
            rows_seen=1000 * epoch,
            losses={"hard": 0.25, "total": 0.5},
            scores=scores(0.5 + epoch / 10),
            seconds=2.0,
        )
        leases.record_epoch(store.engine, running, report, "c" * 64)
    studies.set_teacher(store.engine, study.id, scores(0.96), latency(25.0, 90.0))
    return store.url


@pytest.fixture
def fresh(store: Store) -> str:
    """The name of a study that nobody has worked on."""
    return new_study(store, "fresh").name
