"""StudySpec: a study as its author wrote it. pydantic at the border, frozen inside.

Which students, schemes and parameters exist is not known here: `search.check` compares with the
registries. A scalar is a fixed value, a list a choice, ``{min, max, log, step}`` a range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from kdsearch.core.errors import closest
from kdsearch.core.space import Choice, Range
from kdsearch.core.specdata import DataSpec
from kdsearch.core.specdimensions import DimensionField, Frozen, wrong
from kdsearch.core.specteacher import HistoricalSpec, TeacherSpec

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"


def _variant(value: Any) -> Any:
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, Mapping):
        params = {key: dimension for key, dimension in value.items() if key != "type"}
        return {**{key: value[key] for key in ("type",) if key in value}, "params": params}
    return value


def _variants(value: Any) -> Any:
    if isinstance(value, list) and not value:
        raise wrong("an empty list leaves nothing to search", "at least one type, or leave the key out")
    return tuple(value) if isinstance(value, list) else value


class VariantSpec(Frozen):
    """A student or scheme with the dimensions that narrow its defaults."""

    type: str
    params: Mapping[str, DimensionField] = Field(default_factory=dict)


Variant: TypeAlias = Annotated[VariantSpec, BeforeValidator(_variant)]
Variants: TypeAlias = Annotated[tuple[Variant, ...], BeforeValidator(_variants)]


class PretrainedSpec(Frozen):
    """What students may start from beside random weights and the teacher's."""

    vectors: str | None = None
    """Word vectors in word2vec's text form, also gzipped."""
    encoder: str | None = None
    """Directory or Hub id of a small BERT with the teacher's vocabulary."""


class TrainingSpec(Frozen):
    """How students are trained; one epoch is one pass over the pools of the largest scheme."""

    epochs: int = Field(default=6, ge=1, le=10_000)
    """Of every trial; after each one the student is scored on the validation pool."""
    rows_per_epoch: int | None = Field(default=None, ge=1)
    """Rows that every trial sees between two validations; None: as many as all its pools have together."""
    learning_rate: DimensionField = Field(default=Range(1e-4, 5e-3, log=True))
    batch_size: DimensionField = Field(default=Choice((32, 64)))
    seed: int = Field(default=17, ge=0, lt=2**31)
    """Of weights, order and dropout."""


class Ceiling(Frozen):
    """An upper bound; what lies above is infeasible."""

    max: float = Field(gt=0)
    """Included."""


class ConstraintsSpec(Frozen):
    """What a deployable student must keep to."""

    latency_ms: Ceiling | None = None
    """Of the percentile that `objectives.latency` names."""
    size_mb: Ceiling | None = None
    """10^6 bytes of the deployed model."""


QUALITY_PATTERN = r"^(accuracy|macro_f1|f1:.+|recall@precision=0?\.\d+:.+|recall@precision=1(\.0+)?:.+)$"


def _quality(value: Any) -> Any:
    if isinstance(value, str) and re.match(QUALITY_PATTERN, value):
        return value
    expected = "accuracy, macro_f1, f1:<label> or recall@precision=0.95:<label>"
    suggestion = closest(str(value), ("accuracy", "macro_f1", "f1:<label>", "recall@precision=0.95:<label>"))
    raise wrong(f"unknown quality {value!r}", expected, suggestion=suggestion)


class ObjectivesSpec(Frozen):
    """Quality is maximised, latency minimised."""

    quality: Annotated[str, BeforeValidator(_quality)] = "accuracy"
    latency: Literal["p50_ms", "p90_ms", "p99_ms"] = "p90_ms"
    """Minimised: this percentile over single queries."""


class LatencySpec(Frozen):
    """The measuring protocol (MLPerf single-stream shape)."""

    device: Literal["cpu", "cuda"] = "cpu"
    """What is measured on."""
    runtime: Literal["onnx", "torch"] = "onnx"
    """`onnx` on the CPU, `torch` on CUDA."""
    threads: int = Field(default=1, ge=1, le=256)
    """Of the runtime."""
    batch_size: int = Field(default=1, ge=1, le=1024)
    """Texts a query."""
    warmup: int = Field(default=20, ge=0)
    """Queries that are not counted."""
    min_queries: int = Field(default=200, ge=10)
    """At least so many."""
    min_seconds: float = Field(default=1.0, ge=0)
    """At least so long."""

    @model_validator(mode="after")
    def _device_runtime(self) -> LatencySpec:
        if (self.device == "cuda") != (self.runtime == "torch"):
            raise wrong(f"runtime {self.runtime!r} on device {self.device!r}", "onnx on cpu, torch on cuda")
        return self


class BudgetSpec(Frozen):
    """When the study ends; the only section that may change when a study is resumed."""

    trials: int = Field(default=40, ge=1, le=1_000_000)
    """Trial numbers; rejected, stopped and failed ones count, too."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs of all trials together; repeats of finalists are not among them."""
    hours: float | None = Field(default=None, gt=0)
    """Of wall-clock time in which somebody works, the teacher's preparation included."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Hours of all GPUs together in which a worker held a lease."""
    failed: int = Field(default=10, ge=0)
    """The study stops when more trials than this have failed."""


def _names(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class RungsSpec(Frozen):
    """Epochs at which trials are compared: first, first * factor, first * factor**2, ..."""

    first: int = Field(default=1, ge=1)
    """Epoch of the first rung."""
    factor: int = Field(default=3, ge=2)
    """From each rung to the next."""


class PlateauSpec(Frozen):
    """When the front has stopped growing."""

    trials: int = Field(default=20, ge=1)
    """Finished trials in a row that add too little."""
    gain: float = Field(default=0.001, ge=0, lt=1)
    """Share of the hypervolume that all of them together must add, at least."""


class SearchSpec(Frozen):
    """What proposes the next trial, and what stops one early."""

    sampler: str = "tpe"
    """What proposes the next trial."""
    pruner: str = "none"
    """What stops trials early at rungs."""
    rungs: RungsSpec = RungsSpec()
    plateau: PlateauSpec | None = None
    """None: the study goes on until its budget is spent."""
    quality_floor: float | None = Field(default=None, ge=0, le=1)
    """A student below this quality is worth nothing, however fast; None: that of always saying the most
    frequent label."""
    seed: int = Field(default=17, ge=0, lt=2**31)
    """Of the sampler."""
    presets: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Named sets of recipes that are tried first."""


def _distinct(value: Any) -> Any:
    if isinstance(value, list):
        if not value:
            raise wrong("without seeds nobody is trained again", "at least one seed, or no `finalists`")
        if len(set(map(repr, value))) < len(value):
            raise wrong("the same seed stands twice", "distinct seeds")
        return tuple(value)
    return value


class FinalistsSpec(Frozen):
    """Who is trained again with further seeds, when the search has ended."""

    max: int = Field(default=5, ge=1, le=100)
    """Members of the front; the best `none` of each student type comes beside them."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], BeforeValidator(_distinct)] = (
        1,
        2,
        3,
    )
    """One more training each; `training.seed` is not trained again."""


class StudySpec(Frozen):
    """A whole study file."""

    version: Literal[1]
    """Of this format."""
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Lower-case letters, digits, dots, dashes and underscores, at most 63."""
    data: DataSpec
    teacher: TeacherSpec
    teachers: Annotated[tuple[HistoricalSpec, ...], BeforeValidator(_names)] = ()
    """Historical teachers, for `multi_teacher` and for coverage."""
    pretrained: PretrainedSpec = PretrainedSpec()
    constraints: ConstraintsSpec = ConstraintsSpec()
    students: Variants | None = None
    """None means all, with their own default ranges."""
    schemes: Variants | None = None
    """None means `none` and `offline`; `none` is always there."""
    training: TrainingSpec = TrainingSpec()
    objectives: ObjectivesSpec = ObjectivesSpec()
    latency: LatencySpec = LatencySpec()
    budget: BudgetSpec = BudgetSpec()
    search: SearchSpec = SearchSpec()
    finalists: FinalistsSpec | None = None
    """None: nobody is trained again, and intervals cover the choice of rows alone."""
