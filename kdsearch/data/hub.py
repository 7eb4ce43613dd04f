"""Read a pool from a Hugging Face data set: ``hf://name[@revision][?config=NAME][#split]``, by `datasets`.

`name` may also be a local folder (``hf:///data/reviews``). Nothing in a data set is executed: `datasets`
runs no data set scripts any more, and `trust_remote_code` is never set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kdsearch.core.errors import DataError
from kdsearch.core.specdata import SourceSpec
from kdsearch.data.rows import Cell, Columns, Cut, Rows, require, to_rows

ADDRESS = re.compile(
    r"hf://(?P<name>[^@?#]+)(@(?P<revision>[^?#]+))?(\?config=(?P<config>[^#]+))?(#(?P<split>.+))?"
)
FORM = "hf://name@revision?config=NAME#split, all but the name may be left out"


@dataclass(frozen=True)
class HubAddress:
    """The parts of an address; a revision (commit hash or tag) keeps a study repeatable."""

    name: str
    revision: str | None
    config: str | None
    split: str | None

    @classmethod
    def parse(cls, address: str) -> HubAddress:
        """Raises DataError with the expected form."""
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise DataError(f"{address} is not a data set's address", hint=FORM)
        return cls(**match.groupdict())


def read(source: SourceSpec, columns: Columns, split: str) -> Rows:
    """Rows of a split: the one in the address, else that of the pool's own name."""
    address = HubAddress.parse(source.path)
    data = _load(address, source.path, address.split or split)
    require(columns, data.column_names, source.path)
    cut = Cut(source)
    rows = to_rows(_cells(data, columns, cut), source.path, cut)
    cut.check()
    if not rows.texts:
        raise DataError(f"{source.path} holds no rows")
    return rows


def _load(address: HubAddress, shown: str, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        hint = 'pip install "kdsearch[hf]", or give a file'
        raise DataError(f"{shown} needs the package `datasets`", hint=hint) from error
    try:
        return datasets.load_dataset(address.name, address.config, revision=address.revision, split=split)
    except Exception as error:
        # The library lets through whatever its network and file layers raise.
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{shown}: split {split!r} cannot be loaded ({type(error).__name__}: {reason})",
            hint=f"check name, split and network; the form is {FORM}",
        ) from error


def _cells(data: Any, columns: Columns, cut: Cut) -> Iterator[Cell]:
    """Class numbers become class names; -1, which test splits of benchmarks carry, is no label."""
    names = getattr(data.features[columns.label], "names", None) if columns.label else None
    wanted = data.select_columns(list(dict.fromkeys(filter(None, columns))))
    for number, record in enumerate(cut.until_full(wanted), 1):
        label = record.get(columns.label or "")
        if names is not None and label is not None:
            label = names[label] if label >= 0 else None
        yield Cell(number, None, record[columns.text], label)
