"""Studies with a trial of every state, told in full; pages opened with what their URL says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from streamlit.testing.v1 import AppTest

from kdsearch.core.records import Decision, EpochReport, Failure, Scores, Standing, TrialConfig, TrialResult
from kdsearch.store import leases, workers
from kdsearch.store.connect import Store
from kdsearch.store.standings import set_standings

APP = Path(__file__).resolve().parents[3] / "dashboard" / "app.py"
PARAMS: dict[str, Any] = {"textcnn": {"filters": 64}, "bilstm": {"hidden": 64}, "bag": {"embed_dim": 64}}
SCHEMES: dict[str, Any] = {"none": {}, "offline": {"loss": "kl", "temperature": 4.0, "lambda": 0.5}}
LIMIT_MS = 2.0
TRACEBACK = "Traceback (most recent call last):\nRuntimeError: <b>loss</b> is *nan*"


def scores(quality: float) -> Scores:
    return Scores(
        quality=quality, accuracy=quality, macro_f1=quality, nll=0.1, agreement=0.9,
        recall={"ham": quality, "spam": quality / 2},
    )  # fmt: skip


@dataclass(frozen=True)
class Teller:
    """Writes trials into a study through the store's doors, with everything that can happen to one."""

    engine: Engine
    study_id: int
    name: str
    latency: Callable[..., Any]

    def begin(self, student: str, scheme: str, **more: Any) -> leases.Lease:
        with leases.study_turn(self.engine, self.study_id) as connection:
            number = leases.count_trials(connection, self.study_id)
            return leases.insert_running(
                connection, self.study_id, number=number, optuna_trial_id=number, ttl_s=60.0,
                config=config(student, scheme, number, **more), architecture_key=student, worker_id="w1",
                origin="sampler",
            )  # fmt: skip

    def learn(self, lease: leases.Lease, qualities: list[float], ms: float = 0.4) -> None:
        leases.record_latency(self.engine, lease, self.latency(ms))
        for epoch, quality in enumerate(qualities, start=1):
            report = EpochReport(
                stage="student", epoch=epoch, rows_seen=100 * epoch, scores=scores(quality), seconds=0.1,
                losses={"total": 1.0 / epoch, "hard": 0.4 / epoch, "soft": 0.6 / epoch},
            )  # fmt: skip
            leases.record_epoch(self.engine, lease, report, "e" * 64)

    def judged(self, lease: leases.Lease, epoch: int, action: Any = "continue") -> Decision:
        inputs = {"quality": 0.7, "forecast_mean": 0.8, "forecast_upper": 0.82, "staircase": 0.9}
        words = "up to 0.8200 is forecast; at its latency it needs more than 0.9000"
        return Decision(action=action, rule="front", reason=words, epoch=epoch, inputs=inputs)

    def complete(self, student: str, scheme: str, qualities: list[float], ms: float, **more: Any) -> int:
        lease = self.begin(student, scheme, **more)
        self.learn(lease, qualities, ms)
        leases.record_decision(self.engine, lease, self.judged(lease, 1))
        self.finish(lease, max(qualities), ms)
        return lease.number

    def finish(self, lease: leases.Lease, quality: float, ms: float) -> None:
        result = TrialResult(
            scores=scores(quality), best_epoch=1, epochs_run=2, rows_seen=200, train_seconds=0.1,
            artifact="a" * 64, validation_logits="b" * 64,
        )  # fmt: skip
        leases.finish_complete(self.engine, lease, result, {"latency_ms": ms - LIMIT_MS})

    def paused(self) -> leases.Lease:
        lease = self.begin("textcnn", "offline")
        self.learn(lease, [0.7])
        leases.pause(self.engine, lease, self.judged(lease, 1, "pause"))
        return lease


def config(student: str, scheme: str, number: int, **more: Any) -> TrialConfig:
    return TrialConfig(
        student=student, student_params=PARAMS[student], scheme=scheme, batch_size=32, epochs=2,
        scheme_params={**SCHEMES[scheme], **more}, learning_rate=1e-3 * (1 + number), seed=17,
    )  # fmt: skip


@pytest.fixture
def tell(seed_study: Callable[[str], Any], latency_of: Callable[..., Any]) -> Callable[[str], Teller]:
    """A study without trials, and the one who tells them."""

    def make(name: str) -> Teller:
        study = seed_study(name)
        study.teacher()
        return Teller(study.engine, study.study_id, name, latency_of)

    return make


@pytest.fixture
def latency_of() -> Callable[..., Any]:
    """A latency by its p90."""
    from kdsearch.core.records import HardwareProfile, Latency

    profile = HardwareProfile(
        device_model="a machine", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
    )

    def make(ms: float) -> Latency:
        return Latency(
            p50_ms=ms * 0.8, p90_ms=ms, p99_ms=ms * 1.5, mean_ms=ms, num_queries=100, seconds=1.0,
            size_mb=1.0, num_params=1000, tokenize_p50_ms=0.05, noisy=False, profile=profile,
        )  # fmt: skip

    return make


STATES = ("complete", "complete", "stopped", "rejected", "failed", "paused", "running", "waiting")
"""Of the trials of `every_state`, by number."""


@pytest.fixture
def every_state(tell: Callable[[str], Teller]) -> Teller:
    """A trial of every state, a repeat, standings, workers."""
    teller = tell("states")
    for name in ("w1", "w2"):
        new = workers.NewWorker(id=name, study_id=teller.study_id, host="here", pid=7, device="cpu")
        workers.register(teller.engine, new)
    teller.complete("bag", "none", [0.7, 0.8], 0.1)
    teller.complete("bag", "offline", [0.75, 0.86], 0.1)
    stopped = teller.paused()
    with leases.study_turn(teller.engine, teller.study_id) as connection:
        assert leases.close_study(connection, teller.study_id) == [stopped.number]
    rejected = teller.begin("textcnn", "none")
    too_slow = Decision(action="reject", rule="latency", reason="it takes 9 ms", inputs={"latency_ms": 9.0})
    leases.finish_rejected(teller.engine, rejected, {"latency_ms": 7.0}, too_slow)
    failed = teller.begin("bilstm", "none")
    leases.finish_failed(teller.engine, failed, Failure(kind="exception", message="nan", traceback=TRACEBACK))
    teller.paused()
    teller.learn(teller.begin("bag", "offline"), [0.6])
    with leases.study_turn(teller.engine, teller.study_id) as connection:
        leases.insert_repeats(connection, teller.study_id, [(1, 3)])
        leases.insert_ready(
            connection, teller.study_id, number=7, optuna_trial_id=7, config=config("bag", "none", 7),
            architecture_key="bag",
        )  # fmt: skip
    means = [(0, 0.79, 0.77, 0.81), (1, 0.85, 0.83, 0.88)]
    set_standings(
        teller.engine,
        teller.study_id,
        [
            Standing(number=n, quality=q, low=lo, high=hi, on_front=0.5, seeds=(17, 3))
            for n, q, lo, hi in means
        ],
    )
    return teller


@pytest.fixture
def open_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """A page of the app on the test's database, with what its URL says."""

    def run(page: str, **query: str) -> AppTest:
        monkeypatch.setenv("KDSEARCH_STORAGE", store.url)
        monkeypatch.setenv("KDSEARCH_HOME", str(store.home))
        app = AppTest.from_file(str(APP), default_timeout=120).run()
        app.switch_page(f"app_pages/{page}.py")
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        assert not app.exception
        return app

    return run
