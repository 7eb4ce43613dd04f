"""How large a search space is: its discrete combinations, its real parameters, its architectures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdsearch.core.space import Choice, Dimension, Param, Range, Scalar, Space
from kdsearch.search.plan import Plan
from kdsearch.search.presets.recipe import dimensions_of
from kdsearch.search.spaces import TRAINING


@dataclass(frozen=True, kw_only=True)
class SpaceSize:
    """Of a whole study."""

    combinations: int
    """Ways to choose everything that is discrete."""
    architectures: int
    """Students of which each has a latency of its own."""
    real: tuple[str, ...]
    """Parameters with real values, by their dotted names: with one of them the space is infinite."""


def space_size(plan: Plan) -> SpaceSize:
    """Fixed parameters count once; those that only exist beside others count beside them."""
    students = {name: dimensions_of(plan.spaces.students[name], own) for name, own in plan.students.items()}
    schemes = {name: dimensions_of(plan.spaces.schemes[name], own) for name, own in plan.schemes.items()}
    training = dimensions_of(TRAINING, {name: getattr(plan.spec.training, name) for name in TRAINING})
    of_student = {name: _count(plan.spaces.students[name], found) for name, found in students.items()}
    of_scheme = {name: _count(plan.spaces.schemes[name], found) for name, found in schemes.items()}
    shapes = {
        name: _count(_architecture(plan.spaces.students[name]), found) for name, found in students.items()
    }
    own = _count(TRAINING, training)
    return SpaceSize(
        combinations=sum(of_student.values()) * sum(of_scheme.values()) * own,
        architectures=sum(shapes.values()),
        real=(
            *(
                f"{name}.{key}"
                for name in students
                for key in _real(plan.spaces.students[name], students[name])
            ),
            *(f"{name}.{key}" for name in schemes for key in _real(plan.spaces.schemes[name], schemes[name])),
            *_real(TRAINING, training),
        ),
    )


def _architecture(space: Space) -> Space:
    return {name: param for name, param in space.items() if param.architecture}


def _count(space: Space, dimensions: Mapping[str, Dimension]) -> int:
    """Values are told apart only where another parameter depends on them."""
    asked = {param.when[0] for param in space.values() if param.when is not None}

    def below(names: tuple[str, ...], values: Mapping[str, Scalar]) -> int:
        if not names:
            return 1
        name, rest = names[0], names[1:]
        if not space[name].exists(values):
            return below(rest, values)
        dimension = dimensions[name]
        if name not in asked:
            return _values(dimension) * below(rest, values)
        return sum(below(rest, {**values, name: value}) for value in dimension.values())

    return below(tuple(name for name in space if name in dimensions), {})


def _values(dimension: Dimension) -> int:
    """How many; a range of real numbers counts as one."""
    if isinstance(dimension, Choice):
        return len(dimension.options)
    if isinstance(dimension, Range) and (dimension.integer or dimension.step):
        return int((dimension.high - dimension.low) / (dimension.step or 1) + 1e-9) + 1
    return 1


def _real(space: Space, dimensions: Mapping[str, Dimension]) -> list[str]:
    return [
        name
        for name, found in dimensions.items()
        if isinstance(found, Range) and not found.integer and found.step is None
        if _can_exist(space[name], dimensions)
    ]


def _can_exist(param: Param, dimensions: Mapping[str, Dimension]) -> bool:
    if param.when is None:
        return True
    return any(value in param.conditions for value in dimensions[param.when[0]].values())
