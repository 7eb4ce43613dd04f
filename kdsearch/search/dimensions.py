"""Whether what a study says about one parameter fits it."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.core.errors import Problem, closest
from kdsearch.core.mistakes import shown
from kdsearch.core.positions import YamlPath
from kdsearch.core.space import Choice, Dimension, Fixed, Param, Range, Scalar, Space


def parameter_problems(
    space: Space, narrowed: Mapping[str, Dimension], *, owner: str, path: YamlPath
) -> list[Problem]:
    """What is wrong with the parameters under ``path``; ``owner`` is e.g. ``student textcnn``."""
    problems = []
    for name, dimension in narrowed.items():
        here = (*path, name)
        if name not in space:
            problems.append(_unknown(space, name, owner, here))
        elif problem := misfit(space[name], dimension, name=name, path=here) or _never(
            space, narrowed, name, here
        ):
            problems.append(problem)
    return problems


def misfit(param: Param, dimension: Dimension, *, name: str, path: YamlPath) -> Problem | None:
    """Why the parameter cannot take this; None if it can."""
    if isinstance(dimension, Range):
        return _wrong_range(param, dimension, name=name, path=path)
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
        message=f"`{name}` cannot be {_shown(value)}",
        expected=param.expected() + (", e.g. [[2, 3, 4]]" if param.kind == "ints" else ""),
        suggestion=closest(value, param.allowed) if isinstance(value, str) else "",
    )


def _flat_list(dimension: Choice, *, name: str, path: YamlPath) -> Problem:
    options = shown(list(dimension.options))
    return Problem(
        path=path,
        message=f"`{name}` is one list of integers, so a choice of it is a list of lists",
        expected=f"[{options}], or several: [{options}, ...]",
    )


def _wrong_range(param: Param, dimension: Range, *, name: str, path: YamlPath) -> Problem | None:
    if param.kind not in ("int", "float"):
        return Problem(path=path, message=f"`{name}` has no range", expected=param.expected())
    if param.kind == "int" and not dimension.integer:
        return Problem(path=path, message=f"`{name}` needs whole numbers", expected=param.expected())
    outside = [end for end in dimension.values() if not param.accepts(end)]
    if outside:
        message = f"`{name}` cannot reach {_shown(outside[0])}"
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
    if param.when is None:
        return None
    other, value = param.when[0], " or ".join(param.conditions)
    deciding = narrowed.get(other, space[other].default)
    if set(param.conditions) & set(deciding.values()):
        return None
    only = _shown(deciding.value) if isinstance(deciding, Fixed) else "never that"
    return Problem(
        path=path,
        message=f"`{name}` exists only where `{other}` is {value}, and here it is {only}",
        expected=f"no `{name}`, or `{other}: {value}`",
        on_key=True,
    )


def _shown(value: Scalar) -> str:
    return shown(list(value) if isinstance(value, tuple) else value)
