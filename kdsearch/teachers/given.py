"""Logits brought along, for a teacher that cannot run here: found by the text or its hash.

Two forms, told apart by their first bytes:
- ``.npz``: `texts` (N,) or `keys` (N, 32), the bytes of each text's SHA-256 as UTF-8; `logits` (N, C) and
  `labels` (C,).
- Parquet: a column `text` or `sha256` (hexadecimal), and one column of numbers for each label, named by it.
Nothing in either is executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from kdsearch.core.errors import DataError
from kdsearch.data.tokens import TokenPool, text_keys
from kdsearch.teachers.signals import IntArray, Shard, lookup
from kdsearch.teachers.source import label_order

FORMS = (
    "an .npz with `texts` or `keys`, `logits` and `labels`, or a Parquet file with `text` or `sha256` and"
    " one column of numbers per label"
)
OBJECTS = "save arrays of texts and of numbers, not of objects: `np.array(texts, dtype=str)`"


@dataclass(frozen=True)
class _Given:
    """What a file says, before it is checked."""

    keys: npt.NDArray[np.uint8]
    logits: npt.NDArray[Any]
    labels: tuple[str, ...]


def read_logits(path: Path, labels: Sequence[str], label_map: Mapping[str, str] | None = None) -> Shard:
    """Logits in the order of `labels`, by text; `label_map` is the file's label name -> the data's.

    Raises DataError where labels, shapes or numbers are not what they should be.
    """
    given = _read(path)
    order = label_order(given.labels, labels, label_map=label_map, where=str(path))
    if given.logits.shape != (len(given.keys), len(given.labels)) or not _numbers(given.logits):
        raise DataError(
            f"{path}: logits of shape {given.logits.shape} and type {given.logits.dtype} for"
            f" {len(given.keys)} texts and {len(given.labels)} labels",
            hint="one row of numbers per text, one column per label",
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is found just below
        logits_NC = np.ascontiguousarray(given.logits[:, order], np.float32)
    _check_finite(path, logits_NC)
    return _distinct(path, given.keys, logits_NC)


def missing(shard: Shard, pool: TokenPool) -> IntArray:
    """Rows of a pool whose text has no logits; of equal texts the first alone."""
    return lookup([shard], pool)[1]


def check_complete(shard: Shard, pools: Iterable[TokenPool], *, where: str) -> None:
    """DataError unless every text of these pools has logits; it counts those that have none."""
    counts = []
    for pool in pools:
        rows, num_texts = missing(shard, pool), len(np.unique(pool.keys, axis=0))
        if len(rows):
            counts.append(f"{len(rows)} of {num_texts} texts of {pool.name} (first row {rows[0] + 1})")
    if counts:
        raise DataError(
            f"{where} has no logits of {', '.join(counts)}",
            hint="texts are looked up as they stand in the data, by SHA-256 of their UTF-8 bytes",
        )


def fingerprint(path: Path) -> str:
    """SHA-256 of the file; DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", hint="check `teacher.logits`") from error


# ---------------------------------------------------------------- the two forms


def _read(path: Path) -> _Given:
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] == b"PK":
            return _read_npz(path)
        if start == b"PAR1":
            return _read_parquet(path)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = OBJECTS if "Object arrays" in reason else f"give {FORMS}"
        raise DataError(f"{path}: logits cannot be read: {reason}", hint=hint) from error
    raise DataError(f"{path} holds no logits", hint=f"give {FORMS}")


def _read_npz(path: Path) -> _Given:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if not {"logits", "labels"} <= set(arrays) or not {"texts", "keys"} & set(arrays):
            raise DataError(f"{path} holds {sorted(arrays)}", hint=f"give {FORMS}")
        labels = tuple(str(label) for label in arrays["labels"].reshape(-1))
        keys = arrays["keys"] if "keys" in arrays else text_keys(map(str, arrays["texts"].reshape(-1)))
        if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != 32:
            raise DataError(
                f"{path}: keys {keys.shape} {keys.dtype}", hint="keys are (texts, 32) uint8: SHA-256"
            )
        return _Given(keys, arrays["logits"], labels)


def _read_parquet(path: Path) -> _Given:
    from pyarrow import parquet

    table = parquet.read_table(path)
    by = [name for name in ("text", "sha256") if name in table.column_names]
    if not by:
        raise DataError(f"{path} has the columns {table.column_names}", hint=f"give {FORMS}")
    labels = tuple(name for name in table.column_names if name not in by)
    values = table[by[0]].to_pylist()
    bad = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if bad:
        raise DataError(f"{path}: {len(bad)} of {len(values)} rows have no {by[0]} (first row {bad[0] + 1})")
    keys = text_keys(values) if by[0] == "text" else _digests(path, values)
    columns = [table[name].to_numpy() for name in labels]
    wrong = [name for name, column in zip(labels, columns, strict=True) if not _numbers(column)]
    if wrong:
        raise DataError(
            f"{path}: column {wrong[0]!r} is not of numbers", hint="one column of numbers per label, no other"
        )
    logits = np.stack(columns, axis=1) if columns else np.empty((len(keys), 0), np.float32)
    return _Given(keys, logits, labels)


def _digests(path: Path, values: Sequence[str]) -> npt.NDArray[np.uint8]:
    try:
        joined = b"".join(bytes.fromhex(value) for value in values)
        return np.frombuffer(joined, np.uint8).reshape(len(values), 32)
    except ValueError as error:
        raise DataError(
            f"{path}: sha256 has values that are no SHA-256", hint="64 hexadecimal digits"
        ) from error


# ---------------------------------------------------------------- checks


def _numbers(array: npt.NDArray[Any]) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer))


def _check_finite(path: Path, logits_NC: npt.NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(logits_NC).all(axis=1))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad)} of {len(logits_NC)} rows have logits that are missing or not finite"
            f" (first row {bad[0] + 1})",
            hint="logits are log-probabilities up to a constant: clip the probabilities before the logarithm",
        )


def _distinct(path: Path, keys: npt.NDArray[np.uint8], logits_NC: npt.NDArray[np.float32]) -> Shard:
    """One row per text; a text that stands there twice must say the same twice."""
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    other = np.flatnonzero((logits_NC[first][number] != logits_NC).any(axis=1))
    if len(other):
        raise DataError(
            f"{path}: {len(other)} rows repeat a text with other logits (first row {other[0] + 1})",
            hint="give each text once",
        )
    kept = np.sort(first)
    return Shard(np.ascontiguousarray(keys[kept]), logits_NC[kept])
