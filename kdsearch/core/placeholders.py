"""``${VAR}`` and ``${VAR:-default}`` in a study file: filled in within paths and model ids alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kdsearch.core.errors import Problem
from kdsearch.core.positions import YamlPath

_POOLS = ("train", "validation", "test", "unlabelled")
FILLED: frozenset[YamlPath] = frozenset(
    {("teacher", "model"), ("teacher", "logits"), ("pretrained", "vectors"), ("pretrained", "encoder")}
    | {("data", pool, *rest) for pool in _POOLS for rest in ((), ("path",))}
)
"""Where placeholders are filled in."""

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")


def expand(data: Any, env: Mapping[str, str]) -> tuple[Any, list[Problem]]:
    """The data with placeholders filled in, and what is wrong with them.

    A variable that is set to nothing counts as not set: an empty folder name is never meant.
    """
    problems: list[Problem] = []
    return _expand(data, (), env, problems), problems


def _expand(value: Any, path: YamlPath, env: Mapping[str, str], problems: list[Problem]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, (*path, key), env, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, (*path, i), env, problems) for i, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    found = _wrong_place(path) or _mistakes(value, path, env)
    problems += found
    return value if found else _PLACEHOLDER.sub(lambda m: env.get(m[1]) or m[2] or "", value)


def _wrong_place(path: YamlPath) -> list[Problem]:
    if path in FILLED or (path[0], path[-1]) == ("teachers", "model"):
        return []
    expected = "${VAR} only in the paths under data, teacher, teachers and pretrained"
    return [Problem(path=path, message="a placeholder is not filled in here", expected=expected)]


def _mistakes(value: str, path: YamlPath, env: Mapping[str, str]) -> list[Problem]:
    if "${" in _PLACEHOLDER.sub("", value):
        expected = "${VAR} or ${VAR:-default}"
        return [Problem(path=path, message="a placeholder is not closed or has no name", expected=expected)]
    unset = dict.fromkeys(m[1] for m in _PLACEHOLDER.finditer(value) if not (env.get(m[1]) or m[2]))
    return [
        Problem(
            path=path,
            message=f"the environment variable {name} is not set",
            expected=f"export {name}=..., or a default in the file: ${{{name}:-...}}",
        )
        for name in unset
    ]
