"""Whether what a study says about one parameter fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kdsearch.core.errors import Problem, closest
from kdsearch.core.mistakes import shown
from kdsearch.core.positions import YamlPath
from kdsearch.core.space import Choice, Dimension, Fixed, Param, Range, Scalar, Space


class Scope(NamedTuple):
    """Where a parameter cannot be something, and what is missing there, as messages say it."""

    where: str = ""
    lacking: str = ""


ANYWHERE = Scope()


def parameter_problems(
    space: Space, narrowed: Mapping[str, Dimension], *, owner: str, path: YamlPath, scope: Scope = ANYWHERE
) -> list[Problem]:
    """What is wrong with the parameters under ``path``; ``owner`` is e.g. ``student textcnn``."""
    problems = []
    for name, dimension in narrowed.items():
        here = (*path, name)
        if name not in space:
            problems.append(_unknown(space, name, owner + scope.where, here))
            continue
        problem = misfit(space[name], dimension, name=name, path=here, scope=scope)
        problem = problem or _never(space, narrowed, name, here)
        problems += [problem] if problem else []
    return problems


def holds(dimension: Dimension, value: Scalar) -> bool:
    """Whether the dimension can take a value, which is of its parameter's kind."""
    if not isinstance(dimension, Range):
        return value in dimension.values()
    if not isinstance(value, int | float) or not dimension.low <= value <= dimension.high:
        return False
    steps = (value - dimension.low) / dimension.step if dimension.step else 0.0
    return abs(steps - round(steps)) < 1e-8


def misfit(
    param: Param, dimension: Dimension, *, name: str, path: YamlPath, scope: Scope = ANYWHERE
) -> Problem | None:
    """Why the parameter cannot take this; None if it can."""
    if isinstance(dimension, Range):
        return _wrong_range(param, dimension, name=name, path=path, scope=scope)
    wrong = [(i, value) for i, value in enumerate(dimension.values()) if not param.accepts(value)]
    if not wrong:
        return None
    if (
        param.kind == "ints"
        and isinstance(dimension, Choice)
        and not any(isinstance(option, tuple) for option in dimension.options)
    ):
        return _flat_list(dimension, name=name, path=path)
    index, value = wrong[0]
    return Problem(
        path=(*path, index) if isinstance(dimension, Choice) else path,
        message=f"`{name}` cannot be {_shown(value)}{scope.where}",
        expected=param.expected() + {"ints": ", e.g. [[2, 3, 4]]", "str": scope.lacking}.get(param.kind, ""),
        suggestion=closest(value, param.allowed) if isinstance(value, str) else "",
    )


def _flat_list(dimension: Choice, *, name: str, path: YamlPath) -> Problem:
    options = shown(list(dimension.options))
    return Problem(
        path=path,
        message=f"`{name}` is one list of integers, so a choice of it is a list of lists",
        expected=f"[{options}], or several: [{options}, ...]",
    )


def _wrong_range(
    param: Param, dimension: Range, *, name: str, path: YamlPath, scope: Scope
) -> Problem | None:
    if param.kind not in ("int", "float"):
        return Problem(path=path, message=f"`{name}` has no range", expected=param.expected())
    if param.kind == "int" and not dimension.integer:
        return Problem(path=path, message=f"`{name}` needs whole numbers", expected=param.expected())
    outside = [end for end in dimension.values() if not param.accepts(end)]
    if outside:
        message = f"`{name}` cannot reach {_shown(outside[0])}{scope.where}"
        return Problem(path=path, message=message, expected=param.expected())
    if param.architecture and not dimension.integer and dimension.step is None:
        message = f"`{name}` decides the latency, which is measured for each of its values"
        return Problem(path=path, message=message, expected="a list, or a range with a step")
    return None


def _unknown(space: Space, name: str, owner: str, path: YamlPath) -> Problem:
    return Problem(
        path=path,
        message=f"{owner} has no parameter `{name}`",
        expected=f"one of {', '.join(space)}" if space else f"no parameters under {owner}",
        suggestion=closest(name, space),
        on_key=True,
    )


def _never(space: Space, narrowed: Mapping[str, Dimension], name: str, path: YamlPath) -> Problem | None:
    """A parameter whose condition no trial of the study can meet."""
    param = space[name]
    if param.when is None or _may_exist(space, narrowed, name):
        return None
    other, value = param.when[0], " or ".join(param.conditions)
    return Problem(
        path=path,
        message=f"`{name}` exists only where `{other}` is {value}, and here it is "
        + _instead(space, narrowed, other),
        expected=f"no `{name}`, or `{other}: {param.conditions[0]}`",
        on_key=True,
    )


def _may_exist(space: Space, narrowed: Mapping[str, Dimension], name: str) -> bool:
    """Whether some trial has the parameter; conditions may hang on conditions."""
    if name not in space:
        return False
    param = space[name]
    if param.when is None:
        return True
    other = param.when[0]
    possible = _may_exist(space, narrowed, other)
    return possible and bool(set(param.conditions) & set(_dimension(space, narrowed, other).values()))


def _instead(space: Space, narrowed: Mapping[str, Dimension], name: str) -> str:
    if not _may_exist(space, narrowed, name):
        return "not there"
    deciding = _dimension(space, narrowed, name)
    return _shown(deciding.value) if isinstance(deciding, Fixed) else "never that"


def _dimension(space: Space, narrowed: Mapping[str, Dimension], name: str) -> Dimension:
    return narrowed.get(name, space[name].default)


def _shown(value: Scalar) -> str:
    return shown(list(value) if isinstance(value, tuple) else value)
