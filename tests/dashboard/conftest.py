"""Studies written through the store's own doors, and a browser."""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Engine
from streamlit.testing.v1 import AppTest

from dashboard.queries.studies import Snapshot
from kdsearch.core.records import HardwareProfile, Latency, Scores, TrialConfig, TrialResult
from kdsearch.core.spec import BudgetSpec, StudySpec
from kdsearch.core.studyfile import spec_to_json
from kdsearch.store import leases, studies
from kdsearch.store.columns import TYPES, TrialColumns
from kdsearch.store.connect import Store
from kdsearch.store.reads import StudyRow, TeacherRow

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT_MS = 2.0
PARAMS: dict[str, Any] = {"textcnn": {"filters": 64}, "bilstm": {"hidden": 64}, "bag": {"embed_dim": 64}}
SCHEMES: dict[str, Any] = {"none": {}, "offline": {"loss": "kl", "temperature": 4.0, "lambda": 0.5}}
PROFILE = HardwareProfile(
    device_model="a machine", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
)


def latency(p90_ms: float, *, size_mb: float = 1.0) -> Latency:
    return Latency(
        p50_ms=p90_ms * 0.8,
        p90_ms=p90_ms,
        p99_ms=p90_ms * 1.5,
        mean_ms=p90_ms,
        num_queries=100,
        seconds=1.0,
        size_mb=size_mb,
        num_params=1000,
        tokenize_p50_ms=0.05,
        noisy=False,
        profile=PROFILE,
    )


def scores(quality: float) -> Scores:
    return Scores(
        quality=quality, accuracy=quality, macro_f1=quality, nll=0.1, recall={"ham": quality, "spam": quality}
    )


@dataclass(frozen=True)
class Seeded:
    """A study in the database, to which trials are added."""

    engine: Engine
    name: str
    study_id: int

    def complete(self, student: str, scheme: str, *, quality: float, ms: float, size_mb: float = 1.0) -> int:
        """A trial that ran to its end."""
        lease = self._running(student, scheme)
        leases.record_latency(self.engine, lease, latency(ms, size_mb=size_mb))
        result = TrialResult(
            scores=scores(quality),
            best_epoch=1,
            epochs_run=1,
            rows_seen=10,
            train_seconds=0.1,
            artifact="a" * 64,
            validation_logits="b" * 64,
        )
        leases.finish_complete(self.engine, lease, result, {"latency_ms": ms - LIMIT_MS})
        return lease.number

    def teacher(self, *, quality: float = 0.96, ms: float = 20.0) -> None:
        """The teacher's figures."""
        studies.set_teacher(self.engine, self.study_id, scores(quality), latency(ms, size_mb=90.0))

    def _running(self, student: str, scheme: str) -> leases.Lease:
        with leases.study_turn(self.engine, self.study_id) as connection:
            number = leases.count_trials(connection, self.study_id)
            config = TrialConfig(
                student=student,
                student_params=PARAMS[student],
                scheme=scheme,
                scheme_params=SCHEMES[scheme],
                learning_rate=1e-3,
                batch_size=32,
                epochs=1,
                seed=number,
            )
            return leases.insert_running(
                connection,
                self.study_id,
                number=number,
                optuna_trial_id=number,
                config=config,
                architecture_key=student,
                worker_id="w",
                ttl_s=60.0,
            )


@pytest.fixture
def seed_study(store: Store) -> Callable[[str], Seeded]:
    """Make a study without trials."""

    def make(name: str) -> Seeded:
        spec = StudySpec.model_validate(
            {
                "version": 1,
                "name": name,
                "data": {"train": "train.csv", "validation": "validation.csv"},
                "teacher": {"model": "teacher"},
                "objectives": {"quality": "f1:spam"},
                "constraints": {"latency_ms": {"max": LIMIT_MS}},
            }
        )
        new = studies.NewStudy(
            name=name,
            optuna_name=name,
            spec_text=f"name: {name}\n",
            spec_json=spec_to_json(spec),
            spec_sha256="a" * 64,
            dataset_sha256="c" * 64,
            data_fingerprint="d" * 64,
            artifacts_url=store.artifacts_url,
            budget=BudgetSpec(trials=10),
        )
        return Seeded(store.engine, name, studies.create_study(store.engine, new).id)

    return make


@pytest.fixture
def sms(seed_study: Callable[[str], Seeded]) -> Seeded:
    """Three on the front, one dominated, one over the study's limit, and a teacher."""
    study = seed_study("sms")
    study.teacher()
    study.complete("bag", "none", quality=0.80, ms=0.02, size_mb=0.3)
    study.complete("bag", "offline", quality=0.84, ms=0.03, size_mb=0.3)
    study.complete("textcnn", "offline", quality=0.93, ms=0.4, size_mb=1.5)
    study.complete("textcnn", "none", quality=0.90, ms=0.5, size_mb=1.5)
    study.complete("bilstm", "offline", quality=0.95, ms=3.0, size_mb=4.0)
    return study


# ---------------------------------------------------------------- the app without a browser


@pytest.fixture
def open_app(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """The app on the test's database, with what its URL says."""

    def run(url: str = store.url, **query: str) -> AppTest:
        monkeypatch.setenv("KDSEARCH_STORAGE", url)
        app = AppTest.from_file(str(ROOT / "dashboard/app.py"), default_timeout=120)
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        assert not app.exception
        return app

    return run


# ---------------------------------------------------------------- columns without a database


def columns_of(*rows: Mapping[str, Any]) -> TrialColumns:
    """Trials by number, each with what is said of it."""
    made: dict[str, list[Any]] = {name: [] for name in TrialColumns.__dataclass_fields__}
    for number, row in enumerate(rows):
        quality, ms = row.get("quality", math.nan), row.get("ms", math.nan)
        given = dict.fromkeys(("quality", "accuracy", "macro_f1", "recall", "coverage", "agreement"), quality)
        given |= {"p50_ms": ms * 0.8, "p90_ms": ms, "p99_ms": ms * 1.5, "mean_ms": ms, "size_mb": ms * 3}
        given |= {
            "number": number,
            "state": "complete",
            "origin": "sampler",
            "student": "bag",
            "scheme": "none",
        }
        given |= {"num_params": ms * 1e6, "noisy": False, "feasible": True, "epochs_run": 1}
        given |= {"train_seconds": 1.0, "finished_at": NOW, "so_far": math.nan, **row}
        for name, values in made.items():
            values.append(given[name])
    return TrialColumns(
        **{name: np.array(values, dtype=TYPES.get(name, np.float64)) for name, values in made.items()}
    )


@pytest.fixture(scope="session")
def make_snapshot() -> Callable[..., Snapshot]:
    """A study with these trials, its limit 2 ms, without a teacher."""

    def make(*rows: Mapping[str, Any], **study: Any) -> Snapshot:
        spec = {
            "students": [{"type": name} for name in PARAMS],
            "schemes": [{"type": name} for name in SCHEMES],
            "constraints": {"latency_ms": {"max": LIMIT_MS}},
        }
        about: dict[str, Any] = {
            "id": 1, "name": "sms", "state": "open", "error": None, "spec": spec, "spec_text": "",
            "spec_sha256": "", "data_fingerprint": "", "artifacts_url": "", "counts": {}, "budget_trials": 10,
            "budget_hours": None, "budget_failed": 1, "active_seconds": 0.0, "prepared": None,
            "teacher": None, "quality_name": "f1:spam", "latency_name": "p90_ms", "created_at": NOW,
        }  # fmt: skip
        return Snapshot(study=StudyRow(**{**about, **study}), trials=columns_of(*rows), standings={})

    return make


@pytest.fixture(scope="session")
def teacher_row() -> TeacherRow:
    """A teacher of quality 0.9 that takes 20 ms."""
    return TeacherRow(scores=scores(0.9), latency=latency(20.0, size_mb=90.0))


# ---------------------------------------------------------------- a browser


def chromium() -> str | None:
    """KDSEARCH_CHROMIUM, else a system Chromium; None means Playwright's own."""
    given = os.environ.get("KDSEARCH_CHROMIUM")
    names = ("chromium", "chromium-browser", "google-chrome")
    return given or next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page in a real browser that talks to nobody but us."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        executable = chromium() or playwright.chromium.executable_path
        if not Path(executable).exists():
            pytest.skip(
                f"no browser: {executable} is not there, and neither KDSEARCH_CHROMIUM nor a system one"
            )
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-background-networking"]
        )
        opened = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def served(store: Store, tmp_path: Path) -> Iterator[str]:
    """The app as `streamlit run` serves it, away from the repository's folder."""
    base = f"http://127.0.0.1:{free_port()}/"
    log = tmp_path / "streamlit.log"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("w") as output:
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "streamlit",
                "run",
                str(ROOT / "dashboard/app.py"),
                "--server.port",
                base[17:-1],
            ],
            env={**os.environ, "KDSEARCH_STORAGE": store.url, "PYTHONPATH": path},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(child, base, log)
        yield base
    finally:
        child.terminate()
        child.wait(timeout=120)


def wait_until_ready(child: subprocess.Popen[bytes], base: str, log: Path) -> None:
    for _ in range(2400):
        assert child.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{base}_stcore/health", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())
