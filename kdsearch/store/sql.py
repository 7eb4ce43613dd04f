"""The named queries of ``queries.sql``; Python never writes SQL of its own for kdsearch's tables."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, CursorResult, TextClause, text

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def parse(source: str) -> dict[str, str]:
    """Split a file at its ``-- name: some_query`` lines."""
    parts = _HEADER.split(source)[1:]
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError("two queries have the same name")
    return {name: body.strip().removesuffix(";") for name, body in zip(names, bodies, strict=True)}


@functools.cache
def queries() -> Mapping[str, TextClause]:
    """Every query by name."""
    source = importlib.resources.files("kdsearch.store").joinpath("queries.sql").read_text()
    return {name: text(body) for name, body in parse(source).items()}


def execute(connection: Connection, query: str, /, **parameters: Any) -> CursorResult[Any]:
    """Run a named query; mappings and lists travel as JSON text (queries cast them to jsonb)."""
    return connection.execute(queries()[query], {name: _sent(value) for name, value in parameters.items()})


def _sent(value: Any) -> Any:
    if isinstance(value, (Mapping, list)):
        return to_json(value)
    return clean_text(value) if isinstance(value, str) else value


def to_json(value: object) -> str:
    """JSON that Postgres takes: numbers that are none become their names, NUL characters go."""
    return json.dumps(_clean(value), ensure_ascii=False, allow_nan=False)


def clean_text(value: str) -> str:
    """Text that Postgres takes: no NUL, no lone surrogates."""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _clean(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:  # NaN and the infinities; `number` reads them back
        return str(value)
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(str(k)): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return value


def number(value: float | str) -> float:
    """A float as `to_json` wrote it, ``"nan"`` and ``"inf"`` included."""
    return float(value)


def numbers(value: Mapping[str, float | str]) -> dict[str, float]:
    """A mapping of such floats."""
    return {key: number(v) for key, v in value.items()}
