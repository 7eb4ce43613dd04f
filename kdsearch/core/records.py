"""The frozen values that pass between rooms: what to train, what was seen, how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from kdsearch.core.canonical import sha256_of
from kdsearch.core.space import Scalar

TrialState = Literal["waiting", "running", "paused", "complete", "stopped", "rejected", "failed"]
Values: TypeAlias = tuple[tuple[str, Scalar], ...]
Identity: TypeAlias = tuple[str, Values, str, Values, tuple[float, int, int, int]]
Confusion: TypeAlias = tuple[tuple[int, ...], ...]
"""Rows of each true label (first index) by predicted label, both in the order of the study's labels."""
FINISHED: tuple[TrialState, ...] = ("complete", "stopped", "rejected", "failed")


def _scalars(values: Mapping[str, Any]) -> dict[str, Scalar]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that decides what one trial trains: equal configurations give equal weights."""

    student: str
    student_params: Mapping[str, Scalar]
    scheme: str
    scheme_params: Mapping[str, Scalar]
    learning_rate: float
    batch_size: int
    epochs: int
    seed: int

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical configuration."""
        return sha256_of(asdict(self))

    @cached_property
    def identity(self) -> Identity:
        """Equal for equal configurations, as the key is; a thousand of them take a few milliseconds."""
        student, scheme = sorted(self.student_params.items()), sorted(self.scheme_params.items())
        training = (self.learning_rate, self.batch_size, self.epochs, self.seed)
        return self.student, tuple(student), self.scheme, tuple(scheme), training

    @property
    def params(self) -> dict[str, Scalar]:
        """Every parameter under its dotted name: ``textcnn.filters``, ``offline.lambda``."""
        return {
            "student": self.student,
            **{f"{self.student}.{k}": v for k, v in self.student_params.items()},
            "scheme": self.scheme,
            **{f"{self.scheme}.{k}": v for k, v in self.scheme_params.items()},
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialConfig:
        """From what `to_json` gave, also after a trip through JSON text."""
        params = {k: _scalars(data[k]) for k in ("student_params", "scheme_params")}
        return cls(**{**data, **params})


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How good logits are on a labelled pool. Everything is a share in [0, 1] but `nll` (nats)."""

    quality: float
    """The study's objective, e.g. the F1 of one class."""
    accuracy: float
    macro_f1: float
    nll: float
    """Mean negative log-likelihood of the true label."""
    recall: Mapping[str, float]
    """Recall of each class, by label name; 0 where undefined."""
    agreement: float | None = None
    """Share of rows on which the student's argmax is the teacher's; None without a teacher."""
    coverage: float | None = None
    """Of the rows that at least one historical teacher gets right, the share that is right here.

    Without historical teachers the study's own teacher stands for them; None without any.
    """


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch of one trial, as recorded."""

    stage: str
    epoch: int
    """Counts from 1 over all stages."""
    rows_seen: int
    """Training rows since the trial began, over all stages."""
    losses: Mapping[str, float]
    """Mean of each weighted term over the epoch, and ``total``."""
    scores: Scores | None
    """None where the stage is not scored."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class HardwareProfile:
    """What a latency figure is true of; figures of two profiles never share an axis."""

    device_model: str
    device: str
    runtime: str
    threads: int
    batch_size: int
    length_policy: str

    @property
    def key(self) -> str:
        """SHA-256 of the profile."""
        return sha256_of(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency of one query in milliseconds, and the size of what was timed."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    num_queries: int
    seconds: float
    size_mb: float
    """Size of the deployed model in 10^6 bytes (the ONNX file, or the parameters)."""
    num_params: int
    tokenize_p50_ms: float
    """Median tokenisation time, which the other figures leave out."""
    noisy: bool
    """True if something else may have used the host meanwhile."""
    profile: HardwareProfile
    quantiles_ms: tuple[float, ...] = ()
    """Of the timed queries, from the fastest to the slowest in equal steps; old figures have none."""

    def at(self, objective: str) -> float:
        """The figure that a study's objective names: ``p90_ms``, ``p50_ms`` or ``p99_ms``."""
        return {"p50_ms": self.p50_ms, "p90_ms": self.p90_ms, "p99_ms": self.p99_ms}[objective]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Latency:
        """From what `to_json` gave."""
        quantiles_ms = tuple(data.get("quantiles_ms", ()))
        return cls(**{**data, "profile": HardwareProfile(**data["profile"]), "quantiles_ms": quantiles_ms})


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a finished trial is worth."""

    scores: Scores
    """Of the best scored epoch on the validation pool."""
    best_epoch: int
    epochs_run: int
    rows_seen: int
    train_seconds: float
    artifact: str
    """SHA-256 of the trained student (weights of the best epoch and what rebuilds it)."""
    validation_logits: str
    """SHA-256 of a float32 ``.npy`` of shape (rows, classes), in the pool's order."""
    teacher: Scores | None = None
    """Of the teacher that was trained jointly, after its last step; None where the scheme trains none."""
    peak_memory_mb: float | None = None
    """Largest resident memory (CUDA: allocated) of the worker while it trained, in 10^6 bytes."""
    confusion: Confusion | None = None
    """Of the best epoch, on the rows of the validation pool that have a label; old results have none."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trial as the search sees it: what was known of it at one moment."""

    number: int
    config: TrialConfig
    state: TrialState
    latency_ms: float | None
    """Under the study's objective; None where it was not measured yet."""
    qualities: Mapping[int, float]
    """Epoch (over all stages) -> quality on the validation pool; only scored epochs."""
    quality: float | None = None
    """Of the best epoch, once the trial is complete; None before, and where it never will be."""

    def best_by(self, epoch: int) -> float | None:
        """The best quality of the epochs up to this one; None where none of them was scored."""
        return max((q for e, q in self.qualities.items() if e <= epoch), default=None)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of a trial, and why: kept for whoever asks later."""

    action: Literal["continue", "pause", "promote", "reject", "retry", "stop"]
    rule: str
    """The pruner, or ``latency``, ``size``, ``duplicate``, ``out_of_memory``, ``budget``, ``closed``."""
    reason: str
    """A sentence."""
    epoch: int | None = None
    """The rung; None where there is none."""
    inputs: Mapping[str, float | int | str | None] = field(default_factory=dict)
    """Every figure that was looked at."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How sure a trial's quality and its place on the front are."""

    number: int
    quality: float
    """Mean over seeds."""
    low: float
    high: float
    """95 % interval of it: paired bootstrap over rows, and over seeds where there are several."""
    on_front: float
    """Share of the draws in which the trial is on the front."""
    seeds: tuple[int, ...]

    @property
    def verdict(self) -> Literal["on the front", "tie", "behind"]:
        """A tie is neither surely on the front nor surely behind it (95 %)."""
        if self.on_front >= 0.95:
            return "on the front"
        return "behind" if self.on_front <= 0.05 else "tie"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a trial failed."""

    kind: Literal["exception", "attempts", "out_of_memory", "hang"]
    message: str
    traceback: str = field(default="", repr=False)
