"""What the CLI's lists and the dashboard read: named SQL into frozen rows. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, RowMapping

from kdsearch.core import pareto
from kdsearch.core.errors import NotFoundError
from kdsearch.core.records import (
    Confusion,
    Decision,
    Failure,
    Latency,
    Scores,
    Standing,
    TrialConfig,
    TrialState,
    Tried,
)
from kdsearch.core.space import Scalar
from kdsearch.store.history import History
from kdsearch.store.reads_live import importances as importances
from kdsearch.store.requests import requests as requests
from kdsearch.store.rows import AttemptRow, DecisionRow, RepeatRow
from kdsearch.store.sql import execute, number, numbers
from kdsearch.store.studies import StudyState, not_found
from kdsearch.store.transactions import begin


@dataclass(frozen=True, kw_only=True)
class TeacherRow:
    """The teacher's figures, under the protocol of the students'."""

    scores: Scores
    latency: Latency | None
    confusion: Confusion | None = None
    """On the validation pool; None where it was not kept."""

    @property
    def quality(self) -> float:
        """The study's objective."""
        return self.scores.quality

    @property
    def size_mb(self) -> float | None:
        """10^6 bytes."""
        return None if self.latency is None else self.latency.size_mb


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A study as people look at it."""

    id: int
    name: str
    state: StudyState
    error: str | None
    spec: Mapping[str, Any]
    """The study's specification as JSON, defaults written out."""
    spec_text: str
    spec_sha256: str
    data_fingerprint: str
    artifacts_url: str
    counts: Mapping[str, int]
    """Trials by state; a state without trials is not in there."""
    budget_trials: int
    budget_hours: float | None
    budget_failed: int
    budget_epochs: int | None = None
    budget_gpu_hours: float | None = None
    active_seconds: float
    gpu_seconds: float = 0.0
    epochs_run: int = 0
    """Of all trials together; repeats are not among them."""
    prepared: str | None
    validation_rows: str | None = None
    """Gzipped JSON lines of the validation pool: ``text``, ``label``, ``teacher``; None where hidden."""
    teacher: TeacherRow | None
    quality_name: str
    latency_name: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial as people look at it."""

    number: int
    state: TrialState
    origin: str = ""
    """Who chose it: ``control``, ``stratified``, ``sampler`` or a preset; empty where that was not kept."""
    student: str
    scheme: str
    params: Mapping[str, Scalar]
    """By dotted name, ``student`` and ``scheme`` included."""
    quality: float | None
    scores: Scores | None
    latency: Latency | None
    latency_ms: float | None
    """The figure that the study's objective names."""
    size_mb: float | None
    feasible: bool
    """Whether every constraint is known and met."""
    attempt: int
    """How many times it was leased."""
    deaths: int = 0
    """How many of them ended with their worker."""
    accumulate: int = 1
    """Parts in which a batch goes through memory."""
    worker: str
    """Who has it or had it last; empty while it waits for its first, or for one after a pause."""
    best_epoch: int | None
    epochs_run: int | None
    """So far; None before the first has ended."""
    rows_seen: int | None
    train_seconds: float | None
    teacher: Scores | None = None
    """Of the teacher that was trained beside the student; None where there was none."""
    peak_memory_mb: float | None = None
    """10^6 bytes."""
    confusion: Confusion | None = None
    """On the validation pool; left out of lists, as are the quantiles of the latency."""
    failure: Failure | None
    artifact: str | None
    validation_logits: str | None
    created_at: datetime
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One recorded epoch."""

    epoch: int
    stage: str
    rows_seen: int
    losses: Mapping[str, float]
    scores: Scores | None
    seconds: float
    at: datetime


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """One worker, alive or not."""

    id: str
    host: str
    pid: int
    device: str
    profile_key: str | None
    state: Literal["active", "retired"]
    started_at: datetime
    seen_at: datetime
    draining: bool = False
    """Asked to put its trial away and leave."""


@dataclass(frozen=True, kw_only=True)
class PreparationRow:
    """How far the preparation of a study's teacher is."""

    state: Literal["waiting", "running", "done", "failed"]
    attempt: int
    worker_id: str | None
    progress: str
    checkpoint: str | None
    error: str | None
    prepared: str | None


# ---------------------------------------------------------------- from JSON


def latency_of(data: Mapping[str, Any] | None) -> Latency | None:
    """A stored latency."""
    return None if data is None else Latency.from_json(data)


def confusion_of(data: Mapping[str, Any]) -> Confusion | None:
    """Counts that a result or a teacher has; None where they were not kept."""
    found = data.get("confusion")
    return None if found is None else tuple(map(tuple, found))


def scores_of(data: Mapping[str, Any] | None) -> Scores | None:
    """Stored scores."""
    if data is None:
        return None
    plain = {key: number(data[key]) for key in ("quality", "accuracy", "macro_f1", "nll")}
    return Scores(
        **plain,
        recall=numbers(data["recall"]),
        agreement=_share(data["agreement"]),
        coverage=_share(data.get("coverage")),  # old rows have none
    )


def _share(value: Any) -> float | None:
    return None if value is None else number(value)


def _study(row: RowMapping) -> StudyRow:
    spec, objectives = row["spec_json"], row["spec_json"]["objectives"]
    teacher = row["teacher"]
    scores = scores_of(teacher["scores"]) if teacher else None
    kept = {name: row[name] for name in StudyRow.__dataclass_fields__ if name in row and name != "teacher"}
    timed, counts = (latency_of(teacher["latency"]), confusion_of(teacher)) if teacher else (None, None)
    return StudyRow(
        **kept,
        spec=spec,
        teacher=TeacherRow(scores=scores, latency=timed, confusion=counts) if scores else None,
        quality_name=objectives["quality"],
        latency_name=objectives["latency"],
    )


_OF_RESULT = (
    "best_epoch",
    "rows_seen",
    "train_seconds",
    "peak_memory_mb",
    "artifact",
    "validation_logits",
)
_OF_TRIAL = (
    "number",
    "state",
    "origin",
    "attempt",
    "deaths",
    "accumulate",
    "created_at",
    "started_at",
    "finished_at",
)


def _trial(row: RowMapping) -> TrialRow:
    config, latency = TrialConfig.from_json(row["config"]), latency_of(row["latency"])
    scores, limits = scores_of(row["scores"]), row["constraints"]
    result: Mapping[str, Any] = row["result"] or {}
    failure: Mapping[str, Any] | None = row["failure"]
    own: dict[str, Any] = {name: row[name] for name in _OF_TRIAL}
    own |= {name: result.get(name) for name in _OF_RESULT}
    return TrialRow(
        **own,
        epochs_run=row["epochs_run"] or None,
        student=config.student,
        scheme=config.scheme,
        params=config.params,
        quality=None if scores is None else scores.quality,
        scores=scores,
        latency=latency,
        latency_ms=None if latency is None else latency.at(row["latency_name"]),
        size_mb=None if latency is None else latency.size_mb,
        teacher=scores_of(result.get("teacher")),
        confusion=confusion_of(result),
        feasible=limits is not None and all(excess <= 0 for excess in numbers(limits).values()),
        worker=row["worker_id"],
        failure=None if failure is None else Failure(**failure),
    )


# ---------------------------------------------------------------- the doors


def studies(engine: Engine) -> list[StudyRow]:
    """Every study, newest first."""
    with begin(engine) as connection:
        return [_study(row) for row in execute(connection, "list_studies", name=None).mappings()]


def study(engine: Engine, name: str) -> StudyRow:
    """The study of that name, or NotFoundError."""
    with begin(engine) as connection:
        row = execute(connection, "list_studies", name=name).mappings().one_or_none()
        if row is None:
            raise not_found(connection, name)
        return _study(row)


def trials(engine: Engine, study_id: int, state: TrialState | None = None) -> list[TrialRow]:
    """Every trial of a study, or those in a state, by number."""
    with begin(engine) as connection:
        rows = execute(connection, "list_trials", study_id=study_id, state=state, number=None)
        return [_trial(row) for row in rows.mappings()]


def trial(engine: Engine, study_id: int, number: int) -> TrialRow:
    """One trial, or NotFoundError."""
    with begin(engine) as connection:
        rows = execute(connection, "list_trials", study_id=study_id, state=None, number=number)
        row = rows.mappings().one_or_none()
    if row is None:
        raise NotFoundError(
            f"The study has no trial {number}", hint="kdsearch trial list STUDY shows those there are"
        )
    return _trial(row)


def epochs(engine: Engine, study_id: int, number: int) -> list[EpochRow]:
    """The learning curve of a trial."""
    with begin(engine) as connection:
        rows = execute(connection, "list_epochs", study_id=study_id, number=number).mappings().all()
    return [
        EpochRow(**{**row, "losses": numbers(row["losses"]), "scores": scores_of(row["scores"])})
        for row in rows
    ]


def history(
    where: Connection | Engine, study_id: int, latency_name: str, *, with_epochs: bool
) -> list[Tried]:
    """Every trial as the search sees it, by number; learning curves only where they are asked for."""
    return History(study_id, latency_name, with_epochs=with_epochs).read(where)


def attempts(engine: Engine, study_id: int, number: int) -> list[AttemptRow]:
    """Every lease of a trial and then of its repeats, in order."""
    with begin(engine) as connection:
        rows = execute(connection, "list_attempts", study_id=study_id, number=number).mappings()
        return [AttemptRow(**row) for row in rows]


def decisions(engine: Engine, study_id: int, number: int) -> list[DecisionRow]:
    """What was decided of a trial and its repeats, in order."""
    with begin(engine) as connection:
        rows = execute(connection, "list_decisions", study_id=study_id, number=number).mappings().all()
    return [
        DecisionRow(
            decision=Decision(**{name: row[name] for name in Decision.__dataclass_fields__}),
            **{name: row[name] for name in ("repeat", "attempt", "at")},
        )
        for row in rows
    ]


def repeats(engine: Engine, study_id: int) -> list[RepeatRow]:
    """Further trainings of trials with other seeds, by trial."""
    with begin(engine) as connection:
        rows = execute(connection, "list_repeats", study_id=study_id).mappings().all()
    return [_repeat(row) for row in rows]


def _repeat(row: RowMapping) -> RepeatRow:
    config, scores = TrialConfig.from_json(row["config"]), scores_of(row["scores"])
    result: Mapping[str, Any] = row["result"] or {}
    own = {name: row[name] for name in ("number", "repeat", "state", "epochs_run", "attempt", "worker")}
    own |= {name: result.get(name) for name in ("validation_logits", "artifact", "train_seconds")}
    return RepeatRow(
        **own,
        config=config,
        seed=config.seed,
        scores=scores,
        quality=None if scores is None else scores.quality,
        failure=None if row["failure"] is None else Failure(**row["failure"]),
    )


def standings(engine: Engine, study_id: int) -> list[Standing]:
    """How sure the front is, by trial; empty before the study closed."""
    with begin(engine) as connection:
        rows = execute(connection, "list_standings", study_id=study_id).mappings()
        return [Standing(**{**row, "seeds": tuple(row["seeds"])}) for row in rows]


def workers(engine: Engine, study_id: int) -> list[WorkerRow]:
    """Workers that ever worked on a study, oldest first."""
    with begin(engine) as connection:
        return [WorkerRow(**row) for row in execute(connection, "list_workers", study_id=study_id).mappings()]


def preparation(engine: Engine, study_id: int) -> PreparationRow:
    """How far the preparation of a study is; NotFoundError for an unknown study."""
    with begin(engine) as connection:
        row = execute(connection, "preparation", study_id=study_id).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"There is no study with id {study_id}", hint="kdsearch study list")
    return PreparationRow(**row)


def front(rows: Sequence[TrialRow], *, within_ms: float | None) -> list[TrialRow]:
    """The best of what is deployable: complete, feasible, fast enough; fastest first."""
    candidates = [
        (row, (row.quality, row.latency_ms))
        for row in rows
        if row.state == "complete" and row.feasible and row.quality is not None
        if row.latency_ms is not None and (within_ms is None or row.latency_ms <= within_ms)
    ]
    points = [(quality, latency_ms) for _, (quality, latency_ms) in candidates]
    return [candidates[i][0] for i in pareto.front(points)]
