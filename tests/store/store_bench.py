"""What the store's tests are made of: a study, records with plausible values, ways to make trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from kdsearch.core.records import (
    Decision,
    EpochReport,
    Failure,
    HardwareProfile,
    Latency,
    Scores,
    TrialConfig,
    TrialResult,
)
from kdsearch.core.spec import BudgetSpec
from kdsearch.store import leases
from kdsearch.store.leases import Lease
from kdsearch.store.studies import NewStudy, StudyRecord

SPEC = {"name": "spam", "objectives": {"quality": "f1:spam", "latency": "p90_ms"}, "training": {"epochs": 2}}


def new_study(name: str = "spam", **changes: Any) -> NewStudy:
    values: dict[str, Any] = {
        "name": name,
        "optuna_name": name,
        "spec_text": "version: 1\n",
        "spec_json": SPEC,
        "spec_sha256": "0" * 64,
        "dataset_sha256": "1" * 64,
        "data_fingerprint": "data",
        "artifacts_url": "file:///artifacts",
        "budget": BudgetSpec(trials=40, hours=2.0, failed=3),
    }
    return NewStudy(**{**values, **changes})


def config(**changes: Any) -> TrialConfig:
    values: dict[str, Any] = {
        "student": "textcnn",
        "student_params": {"filters": 64, "kernel_sizes": (2, 3, 4), "dropout": 0.1},
        "scheme": "offline",
        "scheme_params": {"loss": "kl", "temperature": 4.0, "lambda": 0.5},
        "learning_rate": 1e-05,
        "batch_size": 32,
        "epochs": 2,
        "seed": 17,
    }
    return TrialConfig(**{**values, **changes})


def latency(p90_ms: float = 1.5, **changes: Any) -> Latency:
    profile = HardwareProfile(
        device_model="cpu", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
    )
    values: dict[str, Any] = {
        "p50_ms": 1.0,
        "p90_ms": p90_ms,
        "p99_ms": 9.0,
        "mean_ms": 1.1,
        "num_queries": 200,
        "seconds": 1.0,
        "size_mb": 0.7,
        "num_params": 170_000,
        "tokenize_p50_ms": 0.1,
        "noisy": False,
        "profile": profile,
    }
    return Latency(**{**values, **changes})


def scores(quality: float = 0.9, **changes: Any) -> Scores:
    values: dict[str, Any] = {
        "quality": quality,
        "accuracy": 0.95,
        "macro_f1": 0.91,
        "nll": 0.2,
        "recall": {"ham": 0.99, "spam": 0.85},
        "agreement": 0.97,
    }
    return Scores(**{**values, **changes})


def result(quality: float = 0.9, **changes: Any) -> TrialResult:
    values: dict[str, Any] = {
        "scores": scores(quality),
        "best_epoch": 2,
        "epochs_run": 2,
        "rows_seen": 1000,
        "train_seconds": 3.5,
        "artifact": "a" * 64,
        "validation_logits": "b" * 64,
    }
    return TrialResult(**{**values, **changes})


def epoch(number: int = 1, *, loss: float = 0.5, quality: float = 0.9) -> EpochReport:
    return EpochReport(
        stage="distil",
        epoch=number,
        rows_seen=500 * number,
        losses={"total": loss},
        scores=scores(quality),
        seconds=1.0,
    )


def decision(action: Any = "continue", rule: str = "front", **changes: Any) -> Decision:
    values: dict[str, Any] = {"reason": "the front is near", "epoch": 1, "inputs": {"quality": 0.9}}
    return Decision(action=action, rule=rule, **{**values, **changes})


FAILURE = Failure(kind="exception", message="boom", traceback="line 1")
WRITES: dict[str, Callable[[Engine, Lease], None]] = {
    "renew": lambda engine, lease: leases.renew(engine, lease, 60),
    "give_back": leases.give_back,
    "pause": lambda engine, lease: leases.pause(engine, lease, decision("pause")),
    "retry_smaller": lambda engine, lease: leases.retry_smaller(
        engine, lease, decision("retry", "out_of_memory"), accumulate=2, traceback="CUDA"
    ),
    "fail_attempt": lambda engine, lease: leases.fail_attempt(engine, lease, "hang", "stuck"),
    "record_latency": lambda engine, lease: leases.record_latency(engine, lease, latency()),
    "record_decision": lambda engine, lease: leases.record_decision(engine, lease, decision()),
    "record_checkpoint": lambda engine, lease: leases.record_checkpoint(
        engine, lease, "d" * 64, epochs_run=1
    ),
    "record_epoch": lambda engine, lease: leases.record_epoch(engine, lease, epoch(), "c" * 64),
    "finish_complete": lambda engine, lease: leases.finish_complete(engine, lease, result(), {}, decision()),
    "finish_rejected": lambda engine, lease: leases.finish_rejected(
        engine, lease, {"latency_ms": 1.0}, decision("reject", "latency")
    ),
    "finish_failed": lambda engine, lease: leases.finish_failed(engine, lease, FAILURE),
}
"""Every write that the holder of a trial can make."""


@dataclass(frozen=True)
class Bench:
    """A study on a fresh database, and what tests do to its trials."""

    engine: Engine
    study: StudyRecord

    def start(self, number: int = 0, *, worker: str = "w1", ttl_s: float = 60.0, **changes: Any) -> Lease:
        """A new running trial."""
        with leases.study_turn(self.engine, self.study.id) as turn:
            return leases.insert_running(
                turn,
                self.study.id,
                number=number,
                optuna_trial_id=1000 + number,
                config=config(**changes),
                architecture_key="arch",
                worker_id=worker,
                ttl_s=ttl_s,
            )

    def take(self, worker: str = "w2", *, can_measure: bool = True, ttl_s: float = 60.0) -> Lease | None:
        """A waiting trial, if there is one."""
        with leases.study_turn(self.engine, self.study.id) as turn:
            return leases.take_waiting(turn, self.study.id, worker, ttl_s, can_measure=can_measure)

    def sweep(self) -> int:
        with leases.study_turn(self.engine, self.study.id) as turn:
            return leases.sweep(turn, self.study.id)

    def repeat_of(self, number: int = 0, seed: int = 1, *, worker: str = "w1") -> Lease:
        """A running repeat of a new, complete trial; nothing else may be waiting."""
        self.complete(number)
        with leases.study_turn(self.engine, self.study.id) as turn:
            assert leases.insert_repeats(turn, self.study.id, [(number, seed)]) == 1
        lease = self.take(worker)
        assert lease is not None
        assert lease.repeat > 0
        return lease

    def complete(self, number: int = 0, quality: float = 0.9, ms: float = 1.5, **changes: Any) -> None:
        """A new trial that is done."""
        lease = self.start(number, **changes)
        leases.record_latency(self.engine, lease, latency(ms))
        leases.finish_complete(self.engine, lease, result(quality), {"latency_ms": -1.0})

    def snapshot(self, number: int = 0) -> Any:
        """Everything on record of a trial and its repeats, without the times of leases."""
        parts = (
            "SELECT to_jsonb(t) - 'expires_at' AS it FROM kdsearch.trial t",
            "SELECT to_jsonb(t) - 'at' FROM kdsearch.epoch t",
            "SELECT to_jsonb(t) FROM kdsearch.attempt t",
            "SELECT to_jsonb(t) FROM kdsearch.decision t",
        )
        where = " WHERE t.study_id = :id AND t.number = :number"
        query = " UNION ALL ".join(part + where for part in parts)
        with self.engine.begin() as connection:
            query = f"SELECT jsonb_agg(it ORDER BY CAST(it AS text)) FROM ({query}) everything"
            return connection.execute(text(query), {"id": self.study.id, "number": number}).scalar_one()

    def expire(self, number: int = 0) -> None:
        """Let the lease of a trial have ended, as if its worker had been silent for long."""
        query = (
            "UPDATE kdsearch.trial SET expires_at = clock_timestamp() - interval '1 second' "
            "WHERE study_id = :id AND number = :number AND state = 'running'"
        )
        with self.engine.begin() as connection:
            done = connection.execute(text(query), {"id": self.study.id, "number": number})
            assert done.rowcount == 1

    def column(self, name: str, number: int = 0) -> Any:
        """One value of a trial's row."""
        query = (
            f"SELECT {name} FROM kdsearch.trial WHERE study_id = :id AND number = :number "
            "ORDER BY repeat DESC LIMIT 1"
        )
        with self.engine.begin() as connection:
            return connection.execute(text(query), {"id": self.study.id, "number": number}).scalar_one()
