"""The `data` section of a study file: where the pools come from and how they are cut down."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from kdsearch.core.specdimensions import Frozen, not_empty, wrong


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


Labels: TypeAlias = Annotated[tuple[str, ...] | None, BeforeValidator(_labels)]


class SourceSpec(Frozen):
    """Where a pool comes from: a path, a glob, ``hf://name@revision`` or ``synthetic://...``.

    What cuts it down keeps the first rows of the source in their order, so that a smaller pool is always
    part of a larger one: first `keep_labels`, then `per_class`, then `limit`.
    """

    path: str = Field(min_length=1)
    """A file, a glob of files, or an address; relative to the study file."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many rows."""
    keep_labels: Labels = None
    """Only rows with one of these labels."""
    per_class: int | None = Field(default=None, ge=1)
    """At most so many rows of each label."""
    label_noise: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the labelled rows that get another label, drawn evenly from the others; of `train` only."""


Source: TypeAlias = Annotated[SourceSpec, BeforeValidator(_source)]


class AugmentSpec(Frozen):
    """Further texts made from the training texts (Tang et al. 2019); the teacher labels them."""

    times: int = Field(default=3, ge=1, le=100)
    """Variants of each training text."""
    mask: float = Field(default=0.1, ge=0.0, le=1.0)
    """Probability of each word to be masked."""
    swap: float = Field(default=0.1, ge=0.0, le=1.0)
    """Probability of each word to change places with the next one."""
    ngram: float = Field(default=0.25, ge=0.0, le=1.0)
    """Probability of each text to be cut to an n-gram of itself."""
    max_ngram: int = Field(default=5, ge=1, le=100)
    """n is drawn evenly from 1 to this."""
    token: Literal["mask", "unknown"] = "mask"
    """Which of the tokenizer's tokens stands for a masked word."""
    seed: int = Field(default=17, ge=0, lt=2**31)
    """Of all this."""


class DataSpec(Frozen):
    """The pools. The search looks at `validation`; `test` is read once per exported trial."""

    train: Source
    """What students learn from, and the teacher, if it is fine-tuned."""
    validation: Source
    """What the search looks at; at least two classes."""
    test: Source | None = None
    """Read once per exported trial, never by the search."""
    unlabelled: Source | None = None
    """Further texts for distilling."""
    augmented: Annotated[AugmentSpec | None, not_empty("augmented")] = None
    """Variants of the training texts for distilling."""
    text: str = "text"
    """Column of the text, the same in every pool."""
    label: str = "label"
    """Column of the label."""
    labels: Labels = None
    """The classes in order; left out, sorted. A teacher that classifies already decides the order itself."""
    language: Literal["en", "zh"] = "en"
    """What a word is: what stands between spaces, or as rjieba cuts Chinese (extra `zh`)."""
    show_texts: bool = True
    """Whether the dashboard may show single texts of the validation pool."""

    @model_validator(mode="after")
    def _noise_in_training_alone(self) -> DataSpec:
        for name in ("validation", "test", "unlabelled"):
            source = getattr(self, name)
            if source is not None and source.label_noise:
                expected = "label_noise under train: it is learned from alone"
                raise wrong(f"`label_noise` in {name}", expected, at=(name, "label_noise"))
        return self
