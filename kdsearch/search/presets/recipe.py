"""Recipe: parameters of one scheme that are worth a trial with every student before anything is searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kdsearch.core.space import Choice, Dimension, Fixed, Scalar, Space, encode
from kdsearch.core.spec import StudySpec
from kdsearch.search.dimensions import holds


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is not said is sampled: the student's parameters, the pools, the rate."""

    source: str
    """Who recommends it."""
    scheme: str
    params: Mapping[str, Scalar] = field(default_factory=dict)
    low_loss_teacher: bool = False
    """Whether it is about a teacher of the lowest validation loss."""

    def misfit(self, spec: StudySpec, dimensions: Mapping[str, Dimension]) -> str:
        """Why a study whose scheme has these dimensions cannot try it; empty if it can."""
        finetune = spec.teacher.finetune
        if self.low_loss_teacher and finetune is not None and finetune.select != "loss":
            return f"the teacher is selected by {finetune.select}"
        for name, value in self.params.items():
            if name not in dimensions or not holds(dimensions[name], value):
                said = f"{value:g}" if isinstance(value, float) else encode(value)
                return f"`{self.scheme}.{name}` is never {said} in this study"
        return ""

    def searched(self, dimensions: Mapping[str, Dimension]) -> Iterator[tuple[str, bool | int | float | str]]:
        """What Optuna is to be told: the values of those parameters that are searched at all."""
        for name, value in self.params.items():
            dimension = dimensions[name]
            alone = isinstance(dimension, Fixed) or (
                isinstance(dimension, Choice) and len(dimension.options) == 1
            )
            if not alone:
                yield f"{self.scheme}.{name}", encode(value)


def dimensions_of(space: Space, narrowed: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """What each parameter may be, whether the study says so or the default holds."""
    return {name: param.narrow(narrowed.get(name, param.default)) for name, param in space.items()}
