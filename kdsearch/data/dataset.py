"""The pools of a study, checked: one label order, no empty training texts, a fingerprint of the content."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdsearch.core.blobs import Blobs
from kdsearch.core.canonical import canonical_json, sha256_of
from kdsearch.core.errors import ArtifactError, DataError, did_you_mean
from kdsearch.core.specdata import DataSpec, SourceSpec
from kdsearch.data import augment
from kdsearch.data.readers import read_rows
from kdsearch.data.rows import Rows, listed

FORMAT = "kdsearch.dataset/v1"
NO_LABEL = -1
TRAINED_ON = ("train", "unlabelled", augment.NAME)
"""Pools that a trial may train on."""
SCORED = ("validation", "test")
"""Pools that are scored: every row needs its label, and empty texts stay, for they come in use as well."""
FEW_ROWS = 500
"""Below this, a validation pool tells students apart only when they differ much."""


@dataclass(frozen=True)
class Pool:
    """A named set of examples."""

    name: str
    texts: tuple[str, ...]
    labels_N: npt.NDArray[np.int64]
    """Positions in the data set's labels; -1 where a row has no label."""

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """Everything a study reads: ``train``, ``validation``, and what else of `SCORED` and `TRAINED_ON`."""

    labels: tuple[str, ...]
    pools: Mapping[str, Pool]
    warnings: tuple[str, ...]
    fingerprint: str
    """SHA-256 of labels, texts and order; where the files lie does not matter."""


def load_dataset(
    spec: DataSpec,
    *,
    base: Path,
    teacher_labels: tuple[str, ...] | None,
    mask_token: str | None = None,
    seed: int = 17,
) -> Dataset:
    """Read, cut down and check every pool of a study file; augment the training texts if it says so.

    The order of the labels is the teacher's, else that of `labels:`, else they are sorted.
    `mask_token` stands for a masked word of augmented texts; `seed` decides what `label_noise` changes.
    Raises DataError with all there is to say about the first pool that is wrong.
    """
    sources = _sources(spec)
    rows = {name: _read(name, source, spec, base) for name, source in sources.items()}
    warnings: list[str] = []
    labels = _label_order(spec, teacher_labels, rows["train"])
    pools = {name: _pool(name, found, labels, sources[name], warnings) for name, found in rows.items()}
    _check_classes(pools, labels, warnings)
    pools["train"] = _with_noise(pools["train"], spec.train.label_noise, len(labels), seed, warnings)
    if spec.augmented is not None:
        pools[augment.NAME] = _augmented(pools["train"], spec, mask_token, warnings)
    warnings += _duplicates(pools)
    return Dataset(labels, pools, tuple(warnings), _fingerprint(labels, pools))


def _sources(spec: DataSpec) -> dict[str, SourceSpec]:
    given = {
        "train": spec.train,
        "validation": spec.validation,
        "test": spec.test,
        "unlabelled": spec.unlabelled,
    }
    return {name: source for name, source in given.items() if source is not None}


def _read(name: str, source: SourceSpec, spec: DataSpec, base: Path) -> Rows:
    if name != "unlabelled":
        return read_rows(source, base=base, text=spec.text, label=spec.label, split=name)
    chosen = source.keep_labels is not None or source.per_class is not None
    label = spec.label if chosen else None
    try:
        rows = read_rows(source, base=base, text=spec.text, label=label, split=name)
    except DataError as error:
        if chosen:
            error.hint += "; labels are read here because `keep_labels` and `per_class` choose rows by them"
        raise
    return Rows(rows.texts, [None] * len(rows.texts))


# ---------------------------------------------------------------- labels


def _label_order(spec: DataSpec, teacher: tuple[str, ...] | None, train: Rows) -> tuple[str, ...]:
    if teacher is not None and spec.labels is not None and set(teacher) != set(spec.labels):
        raise DataError(
            f"the teacher's labels are {listed(map(repr, teacher))}, those of `labels:` "
            f"{listed(map(repr, spec.labels))}",
            hint="rename the teacher's with `label_map:` under `teacher:`",
        )
    if teacher is not None or spec.labels is not None:
        return teacher or spec.labels or ()
    found = {label for label in train.labels if label is not None} | set(spec.train.keep_labels or ())
    if len(found) < 2:
        only = f"the one label {next(iter(found))!r}" if found else "no label in any row"
        raise DataError(
            f"{spec.train.path} has {only}; a classifier needs at least two",
            hint=f"is {spec.label!r} the right column? Name it with `label:` under `data:`",
        )
    return tuple(sorted(found, key=_label_key))


def _label_key(label: str) -> tuple[float, str]:
    """Numbers by value, so that 10 comes after 2; names after them by their letters."""
    return (int(label) if label.isascii() and label.isdigit() else math.inf, label)


def _positions(name: str, rows: Rows, labels: tuple[str, ...], source: SourceSpec) -> npt.NDArray[np.int64]:
    position: dict[str | None, int] = {label: i for i, label in enumerate(labels)}
    position[None] = NO_LABEL
    unknown = Counter(label for label in rows.labels if label is not None and label not in position)
    if unknown:
        counts = listed(
            f"{label!r} ({count} row{'s' if count > 1 else ''}, first row {rows.labels.index(label) + 1})"
            for label, count in unknown.most_common()
        )
        near = did_you_mean(next(iter(unknown)), labels)
        raise DataError(
            f"{name} ({source.path}): {unknown.total()} of {len(rows.labels)} rows have an unknown label: "
            f"{counts}; known are {listed(map(repr, labels))}",
            hint=near
            or "known labels are the teacher's (which `label_map:` under `teacher:` renames), else those of "
            "`labels:`, else those of train; `keep_labels:` reads rows of some labels alone",
        )
    return np.fromiter((position[label] for label in rows.labels), np.int64, len(rows.labels))


# ---------------------------------------------------------------- pools


def _pool(name: str, rows: Rows, labels: tuple[str, ...], source: SourceSpec, warnings: list[str]) -> Pool:
    path, positions = source.path, _positions(name, rows, labels, source)
    if name != "unlabelled":
        _check_labelled(name, positions, path, warnings)
    empty = np.fromiter((not text.strip() for text in rows.texts), bool, len(rows.texts))
    if not empty.any():
        return Pool(name, tuple(rows.texts), positions)
    count = f"{name}: {empty.sum()} of {len(empty)} texts are empty"
    if name in SCORED:
        warnings.append(f"{count}; they are kept, a student in use meets them too")
        return Pool(name, tuple(rows.texts), positions)
    if empty.all():
        raise DataError(f"{name} ({path}): every text is empty", hint="is `text:` the right column?")
    warnings.append(f"{count}; they are left out")
    return Pool(
        name, tuple(t for t, bad in zip(rows.texts, empty, strict=True) if not bad), positions[~empty]
    )


def _check_labelled(name: str, positions: npt.NDArray[np.int64], path: str, warnings: list[str]) -> None:
    missing = np.flatnonzero(positions == NO_LABEL)
    if not len(missing):
        return
    count = f"{len(missing)} of {len(positions)} rows have no label (first row {missing[0] + 1})"
    if name in SCORED or len(missing) == len(positions):
        raise DataError(f"{name} ({path}): {count}", hint="remove these rows, or label them")
    warnings.append(f"{name}: {count}; they teach by soft targets alone")


def _check_classes(pools: Mapping[str, Pool], labels: tuple[str, ...], warnings: list[str]) -> None:
    """Every class should be trained; the validation pool must hold two at least, or nothing is compared."""
    for name, pool in pools.items():
        counts = np.bincount(pool.labels_N[pool.labels_N >= 0], minlength=len(labels))
        absent = [repr(label) for label, count in zip(labels, counts, strict=True) if not count]
        if name in ("train", "validation") and len(labels) - len(absent) < 2:
            raise DataError(
                f"{name} has rows of fewer than two labels; without {listed(absent)} nothing can be compared"
            )
        if name != "unlabelled" and absent:
            warnings.append(f"{name}: no row has the label {listed(absent)}")
    rows = len(pools["validation"])
    if rows < FEW_ROWS:
        points = 196 * math.sqrt(0.1 * 0.9 / rows)
        warnings.append(
            f"validation: {rows} rows tell an accuracy of 90 % to within {points:.1f} points only"
        )


# ---------------------------------------------------------------- noise, augmentation


def _with_noise(pool: Pool, share: float, num_labels: int, seed: int, warnings: list[str]) -> Pool:
    """`share` of the labelled rows get another label; a larger share changes these rows too, and likewise."""
    labelled = np.flatnonzero(pool.labels_N >= 0)
    count = round(share * len(labelled))
    if not count:
        return pool
    chance = np.random.default_rng(seed)
    chosen = labelled[chance.permutation(len(labelled))[:count]]
    shift = chance.integers(1, num_labels, len(pool))[chosen]
    noisy = pool.labels_N.copy()
    noisy[chosen] = (noisy[chosen] + shift) % num_labels
    warnings.append(
        f"train: {count} of {len(labelled)} labels are wrong on purpose (`label_noise: {share:g}`)"
    )
    return Pool(pool.name, pool.texts, noisy)


def _augmented(train: Pool, spec: DataSpec, mask_token: str | None, warnings: list[str]) -> Pool:
    assert spec.augmented is not None
    rows = augment.augment(train.texts, spec.augmented, language=spec.language, mask_token=mask_token)
    same = augment.unchanged(rows, train.texts, spec.augmented.times)
    if same:
        warnings.append(f"augmented: {same} of {len(rows)} texts are what they were made from")
    return Pool(augment.NAME, rows, np.full(len(rows), NO_LABEL, np.int64))


# ---------------------------------------------------------------- duplicates, fingerprint


def normalised(text: str) -> str:
    """What makes two texts the same for a reader: no case, no compatibility forms, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _duplicates(pools: Mapping[str, Pool]) -> list[str]:
    seen = {name: {normalised(text) for text in pool.texts} - {""} for name, pool in pools.items()}
    found: list[str] = []
    for first, second in combinations(pools, 2):
        shared = seen[first] & seen[second]
        if not shared or {first, second} <= set(TRAINED_ON):
            continue
        count = f"{len(shared)} text{'s stand' if len(shared) > 1 else ' stands'}"
        found.append(f"{count} in {first} and in {second}, e.g. {min(shared)[:60]!r}; scores may be too good")
    return found


def _fingerprint(labels: tuple[str, ...], pools: Mapping[str, Pool]) -> str:
    content = {name: [sha256_of(pool.texts), pool.labels_N.tolist()] for name, pool in pools.items()}
    return sha256_of({"labels": labels, "pools": content})


# ---------------------------------------------------------------- stored with the study


def save_dataset(dataset: Dataset, blobs: Blobs) -> str:
    """Store the pools; the returned SHA-256 names their manifest. Workers elsewhere need no path then."""
    manifest = {
        "format": FORMAT,
        "labels": dataset.labels,
        "pools": {name: blobs.put(_parquet(pool)) for name, pool in dataset.pools.items()},
        "warnings": dataset.warnings,
        "fingerprint": dataset.fingerprint,
    }
    return blobs.put(canonical_json(manifest).encode())


def load_saved(blobs: Blobs, sha256: str) -> Dataset:
    """What `save_dataset` stored; raises ArtifactError where it is something else."""
    manifest: dict[str, Any] = json.loads(blobs.open(sha256).read_bytes())
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise ArtifactError(f"artifact {sha256[:12]} is not a {FORMAT} but {found!r}")
    pools = {name: _from_parquet(name, blobs.open(digest)) for name, digest in manifest["pools"].items()}
    order: Sequence[str] = [name for name in ("train", *SCORED, *TRAINED_ON[1:]) if name in pools]
    return Dataset(
        labels=tuple(manifest["labels"]),
        pools={name: pools[name] for name in order},
        warnings=tuple(manifest["warnings"]),
        fingerprint=manifest["fingerprint"],
    )


def _parquet(pool: Pool) -> bytes:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"text": pyarrow.array(pool.texts, pyarrow.string()), "label": pool.labels_N})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _from_parquet(name: str, path: Path) -> Pool:
    from pyarrow import parquet

    table = parquet.read_table(path)
    return Pool(name, tuple(table["text"].to_pylist()), table["label"].to_numpy())
