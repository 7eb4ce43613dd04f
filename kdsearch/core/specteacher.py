"""The `teacher` and `teachers` sections of a study file: where teachers come from, how they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from kdsearch.core.specdimensions import Frozen, not_empty, wrong


class LastLayers(Frozen):
    """Fine-tune the last k encoder layers and the classifier; the rest is frozen."""

    last: int = Field(ge=1)
    """How many."""


def _layers(value: Any) -> Any:
    if value == "all" or isinstance(value, LastLayers):
        return value
    last = value.get("last") if isinstance(value, Mapping) and set(value) == {"last"} else None
    if isinstance(last, bool) or not isinstance(last, int) or last < 1:
        raise wrong(f"layers is {value!r}", "all, or {last: 4} for the last 4 and the classifier")
    return LastLayers(last=last)


class FinetuneSpec(Frozen):
    """How a teacher that does not classify yet is trained, once per study."""

    epochs: int = Field(default=2, ge=1, le=1000)
    """Passes over the training pool."""
    learning_rate: float = Field(default=5e-5, gt=0, le=1)
    """Of bias-corrected AdamW, with 10 % warm-up and linear decay."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Texts a step."""
    layers: Annotated[Literal["all"] | LastLayers, BeforeValidator(_layers)] = "all"
    """`all`, or `{last: 4}` for the last four encoder layers and the classifier."""
    anchors: int = Field(default=4, ge=1, le=100)
    """Checkpoints kept in order of training, at equal steps."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each label spread over all classes (Müller et al. 2019: it blunts soft targets)."""
    select: Literal["loss", "accuracy"] = "loss"
    """Which checkpoint teaches: of the lowest validation loss, or the highest accuracy. Both are kept."""
    force: bool = False
    """Fine-tune although the teacher classifies already."""


class BuildSpec(Frozen):
    """A small BERT made from a configuration, its word pieces learned from the training texts."""

    layers: int = Field(default=2, ge=1, le=48)
    """Encoder layers."""
    hidden: int = Field(default=128, ge=8, le=4096)
    """Width; divisible by `heads`."""
    heads: int = Field(default=2, ge=1, le=64)
    """Of attention."""
    vocab_size: int = Field(default=4000, ge=64, le=200_000)
    """Word pieces, learned from the training texts."""

    @model_validator(mode="after")
    def _divisible(self) -> BuildSpec:
        if self.hidden % self.heads:
            raise wrong(
                f"hidden {self.hidden} cannot be split over {self.heads} heads", "hidden divisible by heads"
            )
        return self


class PretrainSpec(Frozen):
    """Masked-language-model training of a built teacher on all texts but the scored ones (BERT, 3.1)."""

    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over the training and unlabelled texts."""
    learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of AdamW."""
    batch_size: int = Field(default=64, ge=1, le=4096)
    """Texts a step."""
    mask: float = Field(default=0.15, gt=0.0, lt=1.0)
    """Share of the tokens that are to be guessed."""


class JointSpec(Frozen):
    """How a teacher is trained beside a student, or for the trajectory that `joint_isolated` replays."""

    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over the labelled pool after which the teacher stands still."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Of the trajectory; a live teacher sees its student's batches."""
    learning_rate: float = Field(default=5e-5, gt=0, le=1)
    """Of the teacher."""


class TeacherSpec(Frozen):
    """The teacher: a local directory or Hub id, or one built from a configuration."""

    model: str | None = None
    """Directory or Hub id of a transformers encoder."""
    build: BuildSpec | None = None
    """A small BERT made on the spot."""
    logits: str | None = None
    """Logits by text, for a teacher that cannot run here; `model` or `build` gives the tokenizer."""
    max_length: int = Field(default=128, ge=4, le=8192)
    """Word pieces per text; the rest is cut."""
    pretrain: Annotated[PretrainSpec | None, not_empty("pretrain")] = None
    """Of a built teacher, before it is fine-tuned."""
    finetune: FinetuneSpec | None = None
    """How it is trained if it does not classify yet; left out, it is used as it is."""
    joint: JointSpec = JointSpec()
    """How it is trained in the joint schemes."""
    label_map: Mapping[str, str] | None = None
    """The teacher's label name -> the data's."""

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherSpec:
        if (self.model is None) == (self.build is None):
            raise wrong("a teacher has either `model` or `build`", "model: DIRECTORY-OR-HUB-ID")
        if self.logits is not None:
            return self._only_logits()
        if self.build is not None and self.finetune is None:
            raise wrong(
                "a teacher built from a configuration knows nothing yet", "finetune: {epochs: 5} beside build"
            )
        if self.build is not None and self.label_map is not None:
            message = "a teacher built from a configuration has the data's labels"
            raise wrong(message, "no label_map", at=("label_map",))
        if self.finetune is not None and self.label_map is not None:
            message = "a teacher that is fine-tuned here has the data's labels"
            raise wrong(message, "no label_map", at=("label_map",))
        if self.pretrain is not None and self.build is None:
            raise wrong("`pretrain` is for a built teacher", "build: {...} beside pretrain", at=("pretrain",))
        return self

    def _only_logits(self) -> TeacherSpec:
        for key in ("finetune", "pretrain"):
            if getattr(self, key) is not None:
                message = "a teacher whose `logits` are given is not trained here"
                raise wrong(message, f"no {key}", at=(key,))
        return self


class Slice(NamedTuple):
    """Part `number` of `parts` equal parts of the training pool, counted from 1."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"


def _slice(value: Any) -> Any:
    expected = "a part of the training texts, e.g. 1/3"
    if value is None or isinstance(value, Slice):
        return value
    number, slash, parts = str(value).partition("/")
    if not (slash and number.strip().isdigit() and parts.strip().isdigit()):
        raise wrong(f"slice is {value!r}", expected)
    if not 1 <= int(number) <= int(parts) <= 100:
        raise wrong(f"there is no slice {value!r}", expected)
    return Slice(int(number), int(parts))


class HistoricalSpec(Frozen):
    """A historical teacher: a classifier used as it is, or one fine-tuned on a slice of the training pool."""

    model: str | None = None
    """Directory or Hub id of a classifier with the study's labels."""
    slice: Annotated[Slice | None, BeforeValidator(_slice)] = None
    """Fine-tuned like the study's teacher, from the same start, on this part of the training pool alone."""
    weight: float = Field(default=1.0, gt=0)
    """Its share in the soft target; only the ratio to the other weights counts."""
    label_map: Mapping[str, str] | None = None
    """Of a `model`: its label names -> the data's."""

    @model_validator(mode="after")
    def _one_origin(self) -> HistoricalSpec:
        if (self.model is None) == (self.slice is None):
            raise wrong("a historical teacher has a `model` or a `slice`", "model: DIRECTORY, or slice: 1/3")
        if self.slice is not None and self.label_map is not None:
            message = "a teacher that is fine-tuned here has the data's labels"
            raise wrong(message, "no label_map", at=("label_map",))
        return self
