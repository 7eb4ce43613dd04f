"""StudySpec: a study as its author wrote it. pydantic at the border, frozen inside.

Which students, schemes and parameters exist is not known here: `search.check` compares with the
registries. A scalar is a fixed value, a list a choice, ``{min, max, log, step}`` a range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from kdsearch.core.errors import closest
from kdsearch.core.space import Choice, Dimension, Fixed, Range, Scalar

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
RANGE_KEYS = ("min", "max", "log", "step")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


def wrong(message: str, expected: str, *, suggestion: str = "") -> PydanticCustomError:
    """A mistake at the place of the value being validated."""
    context = {"message": message, "expected": expected, "suggestion": suggestion}
    return PydanticCustomError("study", "{message}", context)


# ---------------------------------------------------------------- dimensions


def _scalar(value: Any) -> Scalar:
    if isinstance(value, list):
        if value and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            return tuple(value)
        raise wrong(f"{value!r} is not a list of integers", "e.g. [2, 3, 4]")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"{value!r} is not a finite number", "a finite number")
    if isinstance(value, (bool, int, float, str)):
        return value
    raise wrong(
        "nothing stands here" if value is None else f"{value!r} is not a value",
        "a number, a text, true or false",
    )


def _range(value: Mapping[str, Any]) -> Range:
    expected = "{min: 0.1, max: 1.0} with optional log: true or step: 0.1"
    unknown = [key for key in value if key not in RANGE_KEYS]
    if unknown:
        suggestion = closest(str(unknown[0]), RANGE_KEYS)
        raise wrong(f"unknown key `{unknown[0]}` in a range", expected, suggestion=suggestion)
    low, high, log, step = (value.get(key) for key in RANGE_KEYS)
    numbers = [n for n in (low, high) if isinstance(n, (int, float)) and not isinstance(n, bool)]
    if len(numbers) < 2 or not all(math.isfinite(n) for n in numbers):
        raise wrong("a range needs the numbers min and max", expected)
    return _checked_range(numbers[0], numbers[1], log, step, expected)


def _checked_range(low: float, high: float, log: Any, step: Any, expected: str) -> Range:
    if not low < high:
        raise wrong(f"min {low!r} is not below max {high!r}", "min below max")
    if not (log is None or isinstance(log, bool)):
        raise wrong(f"log is {log!r}", "true or false")
    if log and step is not None:
        raise wrong("log and step exclude each other", expected)
    if log and low <= 0:
        raise wrong(f"min {low!r} of a logarithmic range is not above 0", "min above 0")
    _check_step(low, high, step)
    integer = all(isinstance(n, int) for n in (low, high, step if step is not None else 1))
    return Range(low, high, log=bool(log), step=step, integer=integer)


def _check_step(low: float, high: float, step: Any) -> None:
    if step is None:
        return
    number = isinstance(step, (int, float)) and not isinstance(step, bool) and math.isfinite(step)
    if not number or step <= 0:
        raise wrong(f"step is {step!r}", "a number above 0")
    start, end, stride = (Decimal(str(n)) for n in (low, high, step))
    if (end - start) % stride:
        last = start + (end - start) // stride * stride
        raise wrong(f"step {step!r} from min {low!r} does not meet max {high!r}", f"e.g. max: {last}")


def dimension(value: Any) -> Dimension:
    """Scalar, list or mapping as written, into a Dimension."""
    if isinstance(value, (Fixed, Choice, Range)):
        return value
    if isinstance(value, Mapping):
        return _range(value)
    if isinstance(value, list):
        if not value:
            raise wrong("an empty list leaves nothing to choose", "at least one value")
        options = tuple(_scalar(v) for v in value)
        if len(set(map(repr, options))) < len(options):
            raise wrong("the same value stands twice in a choice", "distinct values")
        return Choice(options)
    return Fixed(_scalar(value))


DimensionField: TypeAlias = Annotated[Fixed | Choice | Range, BeforeValidator(dimension)]

# ---------------------------------------------------------------- sections


def _source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _labels(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    expected = "at least two distinct texts, numbers in quotes: [ham, spam] or ['0', '1']"
    others = [label for label in value if not isinstance(label, str)]
    if others:
        raise wrong(f"the label {others[0]!r} is not a text", expected)
    if len(value) < 2 or len(set(value)) < len(value):
        raise wrong(f"labels are {value!r}", expected)
    return tuple(value)


class SourceSpec(_Frozen):
    """Where a pool comes from: a path, a glob, ``hf://name@revision`` or ``synthetic://...``."""

    path: str = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)


Source: TypeAlias = Annotated[SourceSpec, BeforeValidator(_source)]


class DataSpec(_Frozen):
    """The pools. The search looks at `validation`; `test` is read once per exported trial."""

    train: Source
    validation: Source
    test: Source | None = None
    unlabelled: Source | None = None
    text: str = "text"
    label: str = "label"
    labels: Annotated[tuple[str, ...] | None, BeforeValidator(_labels)] = None


class LastLayers(_Frozen):
    """Fine-tune the last k encoder layers and the classifier; the rest is frozen."""

    last: int = Field(ge=1)


def _layers(value: Any) -> Any:
    if value == "all" or isinstance(value, LastLayers):
        return value
    last = value.get("last") if isinstance(value, Mapping) and set(value) == {"last"} else None
    if isinstance(last, bool) or not isinstance(last, int) or last < 1:
        raise wrong(f"layers is {value!r}", "all, or {last: 4} for the last 4 and the classifier")
    return LastLayers(last=last)


class FinetuneSpec(_Frozen):
    """How a teacher that does not classify yet is trained, once per study."""

    epochs: int = Field(default=2, ge=1, le=1000)
    learning_rate: float = Field(default=5e-5, gt=0, le=1)
    batch_size: int = Field(default=32, ge=1, le=4096)
    layers: Annotated[Literal["all"] | LastLayers, BeforeValidator(_layers)] = "all"
    anchors: int = Field(default=4, ge=1, le=100)
    """Checkpoints kept in order of training, at equal steps."""
    force: bool = False
    """Fine-tune although the teacher classifies already."""


class BuildSpec(_Frozen):
    """A small BERT made from a configuration, its word pieces learned from the training texts."""

    layers: int = Field(default=2, ge=1, le=48)
    hidden: int = Field(default=128, ge=8, le=4096)
    heads: int = Field(default=2, ge=1, le=64)
    vocab_size: int = Field(default=4000, ge=64, le=200_000)

    @model_validator(mode="after")
    def _divisible(self) -> BuildSpec:
        if self.hidden % self.heads:
            raise wrong(
                f"hidden {self.hidden} cannot be split over {self.heads} heads", "hidden divisible by heads"
            )
        return self


class TeacherSpec(_Frozen):
    """The teacher: a local directory or Hub id, or one built from a configuration."""

    model: str | None = None
    build: BuildSpec | None = None
    max_length: int = Field(default=128, ge=4, le=8192)
    finetune: FinetuneSpec | None = None
    label_map: Mapping[str, str] | None = None
    """The teacher's label name -> the data's."""

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherSpec:
        if (self.model is None) == (self.build is None):
            raise wrong("a teacher has either `model` or `build`", "model: DIRECTORY-OR-HUB-ID")
        if self.build is not None and self.finetune is None:
            raise wrong(
                "a teacher built from a configuration knows nothing yet", "finetune: {epochs: 5} beside build"
            )
        if self.build is not None and self.label_map is not None:
            raise wrong("a teacher built from a configuration has the data's labels", "no label_map")
        if self.finetune is not None and self.label_map is not None:
            raise wrong("a teacher that is fine-tuned here has the data's labels", "no label_map")
        return self


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


class VariantSpec(_Frozen):
    """A student or scheme with the dimensions that narrow its defaults."""

    type: str
    params: Mapping[str, DimensionField] = Field(default_factory=dict)


Variant: TypeAlias = Annotated[VariantSpec, BeforeValidator(_variant)]
Variants: TypeAlias = Annotated[tuple[Variant, ...], BeforeValidator(_variants)]


class TrainingSpec(_Frozen):
    """How students are trained; one epoch is one pass over the pools of the largest scheme."""

    epochs: int = Field(default=6, ge=1, le=10_000)
    learning_rate: DimensionField = Field(default=Range(1e-4, 5e-3, log=True))
    batch_size: DimensionField = Field(default=Choice((32, 64)))
    seed: int = Field(default=17, ge=0, lt=2**31)


class Ceiling(_Frozen):
    """An upper bound; what lies above is infeasible."""

    max: float = Field(gt=0)


class ConstraintsSpec(_Frozen):
    """What a deployable student must keep to."""

    latency_ms: Ceiling | None = None
    size_mb: Ceiling | None = None


QUALITY_PATTERN = r"^(accuracy|macro_f1|f1:.+|recall@precision=0?\.\d+:.+|recall@precision=1(\.0+)?:.+)$"


def _quality(value: Any) -> Any:
    if isinstance(value, str) and re.match(QUALITY_PATTERN, value):
        return value
    expected = "accuracy, macro_f1, f1:<label> or recall@precision=0.95:<label>"
    suggestion = closest(str(value), ("accuracy", "macro_f1", "f1:<label>", "recall@precision=0.95:<label>"))
    raise wrong(f"unknown quality {value!r}", expected, suggestion=suggestion)


class ObjectivesSpec(_Frozen):
    """Quality is maximised, latency minimised."""

    quality: Annotated[str, BeforeValidator(_quality)] = "accuracy"
    latency: Literal["p50_ms", "p90_ms", "p99_ms"] = "p90_ms"


class LatencySpec(_Frozen):
    """The measuring protocol (MLPerf single-stream shape)."""

    device: Literal["cpu", "cuda"] = "cpu"
    runtime: Literal["onnx", "torch"] = "onnx"
    threads: int = Field(default=1, ge=1, le=256)
    batch_size: int = Field(default=1, ge=1, le=1024)
    warmup: int = Field(default=20, ge=0)
    min_queries: int = Field(default=200, ge=10)
    min_seconds: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _device_runtime(self) -> LatencySpec:
        if (self.device == "cuda") != (self.runtime == "torch"):
            raise wrong(f"runtime {self.runtime!r} on device {self.device!r}", "onnx on cpu, torch on cuda")
        return self


class BudgetSpec(_Frozen):
    """When the study ends; the only section that may change when a study is resumed."""

    trials: int = Field(default=40, ge=1, le=1_000_000)
    hours: float | None = Field(default=None, gt=0)
    failed: int = Field(default=10, ge=0)
    """The study stops when more trials than this have failed."""


class SearchSpec(_Frozen):
    """What proposes the next trial."""

    sampler: str = "tpe"
    seed: int = Field(default=17, ge=0, lt=2**31)


class StudySpec(_Frozen):
    """A whole study file."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    data: DataSpec
    teacher: TeacherSpec
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
