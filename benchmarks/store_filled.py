"""A study that has many trials already: made-up figures, in kdsearch's tables and in Optuna's."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from sqlalchemy import Connection, text

from kdsearch.core.canonical import sha256_of
from kdsearch.core.facts import Facts
from kdsearch.core.records import HardwareProfile, Latency, Scores, TrialConfig, TrialResult
from kdsearch.core.studyfile import spec_from_json, spec_to_json
from kdsearch.measure.hostlock import HostLock
from kdsearch.search.asking import DIRECTIONS
from kdsearch.store import studies
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.worker.context import WorkerContext, WorkerOptions

if TYPE_CHECKING:
    from kdsearch.data.inputs import Inputs

LABELS = ("ham", "spam")
LEASE_S = 3600.0
"""Nothing renews a lease here."""
PROFILE = HardwareProfile(
    device_model="none", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
)
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "load",
    "data": {"train": "synthetic://spam_opinions?rows=100&seed=1", "validation": "train.jsonl"},
    "teacher": {"model": "none"},
    "students": ["textcnn", "bilstm", "bag"],
    "training": {"epochs": 2},
    "budget": {"trials": 1_000_000, "failed": 1_000_000},
}
FACTS = Facts(
    num_labels=2,
    pools=("train",),
    epochs=2,
    anchors=0,
    num_historical=0,
    teacher_width=64,
    teacher_layers=2,
    bert_teacher=True,
    vector_width=None,
    encoder_layers=None,
)


def context_of(store: Store, name: str) -> WorkerContext:
    """A worker's, in such a study; it trains nothing, so that it is given nothing to train on."""
    study = studies.find_study(store.engine, name)
    inputs = cast("Inputs", SimpleNamespace(facts=FACTS))
    return WorkerContext(
        store=store,
        study=study,
        spec=spec_from_json(study.spec_json),
        inputs=inputs,
        options=WorkerOptions(lease_s=LEASE_S),
        worker_id=f"load-{multiprocessing.current_process().pid}",
        lock=HostLock(store.home / "locks"),
        should_stop=lambda: False,
    )


# ---------------------------------------------------------------- made-up figures


def figures(config: TrialConfig) -> tuple[Latency, TrialResult]:
    """Latency by architecture and quality by configuration, as if somebody had trained it."""
    own = np.random.default_rng(int(config.key[:8], 16))
    same = np.random.default_rng(int(sha256_of([config.student, config.params.get("filters")])[:8], 16))
    ms, quality = float(same.uniform(0.2, 4)), float(own.uniform(0.5, 0.95))
    latency = Latency(
        p50_ms=ms,
        p90_ms=ms,
        p99_ms=ms,
        mean_ms=ms,
        num_queries=1,
        seconds=0.0,
        size_mb=1.0,
        num_params=1,
        tokenize_p50_ms=0.0,
        noisy=False,
        profile=PROFILE,
    )
    scores = Scores(
        quality=quality, accuracy=quality, macro_f1=quality, nll=1.0, recall=dict.fromkeys(LABELS, quality)
    )
    result = TrialResult(
        scores=scores,
        best_epoch=2,
        epochs_run=2,
        rows_seen=200,
        train_seconds=0.0,
        artifact="a" * 64,
        validation_logits="b" * 64,
    )
    return latency, result


# ---------------------------------------------------------------- a study that has trials already


def make_study(store: Store, name: str, num_trials: int, *, sampler: str = "tpe") -> None:
    """A study with so many complete trials, in kdsearch's tables and in Optuna's."""
    spec = {**SPEC, "name": name, "search": {"sampler": sampler}}
    storage = optuna_storage(store)
    optuna.create_study(study_name=name, storage=storage, directions=DIRECTIONS)
    record = studies.create_study(
        store.engine,
        studies.NewStudy(
            name=name,
            optuna_name=name,
            spec_text=json.dumps(spec),
            spec_json=spec_to_json(spec_from_json(spec)),
            spec_sha256=sha256_of(spec),
            dataset_sha256="0" * 64,
            data_fingerprint="none",
            artifacts_url=store.artifacts_url,
            budget=spec_from_json(spec).budget,
        ),
    )
    context = context_of(store, name)
    drawn = optuna.create_study(
        directions=DIRECTIONS,
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=optuna.pruners.NopPruner(),
    )
    trials = [drawn.ask() for _ in range(num_trials)]
    configs = [context.plan.suggest(trial) for trial in trials]
    optuna_study = storage.get_study_id_from_name(name)
    with store.engine.begin() as connection:
        first = _fill_optuna(connection, optuna_study, trials, configs)
        _fill(connection, record.id, first, configs)
        connection.execute(text("ANALYZE"))


INTO_OPTUNA = (
    "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete) "
    "VALUES (:id, :number, :study, 'COMPLETE', now(), now())",
    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
    "VALUES (:id, :name, :value, :how)",
    "INSERT INTO trial_values (trial_id, objective, value, value_type) "
    "VALUES (:id, :objective, :value, 'FINITE')",
)


def _fill_optuna(
    connection: Connection,
    study_id: int,
    trials: Sequence[optuna.Trial],
    configs: Sequence[TrialConfig],
) -> int:
    """Optuna's number of the first of these trials."""
    first = int(connection.execute(text("SELECT coalesce(max(trial_id), 0) + 1 FROM trials")).scalar_one())
    rows, params, values = [], [], []
    for number, (trial, config) in enumerate(zip(trials, configs, strict=True)):
        latency, result = figures(config)
        rows.append({"id": first + number, "number": number, "study": study_id})
        for name, distribution in trial.distributions.items():
            inner = float(distribution.to_internal_repr(trial.params[name]))
            written = distribution_to_json(distribution)
            params.append({"id": first + number, "name": name, "value": inner, "how": written})
        for objective, value in enumerate((result.scores.quality, latency.p90_ms)):
            values.append({"id": first + number, "objective": objective, "value": value})
    for statement, filled in zip(INTO_OPTUNA, (rows, params, values), strict=True):
        connection.execute(text(statement), filled)
    connection.execute(text("SELECT setval('trials_trial_id_seq', :last)"), {"last": first + len(trials)})
    return first


def _fill(connection: Connection, study_id: int, first: int, configs: Sequence[TrialConfig]) -> None:
    rows = []
    for number, config in enumerate(configs):
        latency, result = figures(config)
        values = asdict(result)
        scores = values.pop("scores")
        rows.append(
            {
                "study": study_id,
                "number": number,
                "optuna": first + number,
                "config": json.dumps(config.to_json()),
                "key": config.key,
                "architecture": sha256_of([config.student, dict(config.student_params)]),
                "student": config.student,
                "scheme": config.scheme,
                "latency": json.dumps(latency.to_json()),
                "result": json.dumps(values),
                "scores": json.dumps(scores),
                "quality": result.scores.quality,
            }
        )
    connection.execute(
        text(
            "INSERT INTO kdsearch.trial (study_id, number, optuna_trial_id, config, config_key, "
            "architecture_key, student, scheme, state, attempt, worker_id, measured, latency, result, "
            "scores, quality, constraints, told, finished_at, epochs_run) VALUES (:study, :number, :optuna, "
            "CAST(:config AS jsonb), :key, :architecture, :student, :scheme, 'complete', 1, 'past', true, "
            "CAST(:latency AS jsonb), CAST(:result AS jsonb), CAST(:scores AS jsonb), :quality, '{}', true, "
            "clock_timestamp(), 2)"
        ),
        rows,
    )
