"""Tokenised pools: every text's ids in one flat array, with the hash of the text beside its label.

Letters: N rows, T tokens, V the tokenizer's vocabulary. Rows never carry a name other than their position;
what a teacher's signals are looked up by is the hash of the text (`keys`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from kdsearch.core.errors import ArtifactError

if TYPE_CHECKING:
    from kdsearch.data.dataset import Pool

IntArray = npt.NDArray[np.int64]

PADDING = 0
"""Compact id of padding."""
UNKNOWN = 1
"""Compact id of every token that occurs in no training pool."""
ROWS_AT_ONCE = 4096
FIELDS = ("ids", "offsets", "labels_N", "keys")


@dataclass(frozen=True)
class TokenPool:
    """A pool as token ids; row i is ``ids[offsets[i]:offsets[i + 1]]``, special tokens included."""

    name: str
    ids: npt.NDArray[np.int32]
    offsets: IntArray
    """(N + 1,), from 0 to len(ids)."""
    labels_N: IntArray
    """-1 where a row has no label."""
    keys: npt.NDArray[np.uint8]
    """(N, 32), SHA-256 of each text."""

    def __len__(self) -> int:
        return len(self.labels_N)

    @cached_property
    def lengths(self) -> IntArray:
        """Number of tokens of every row."""
        return np.diff(self.offsets)

    def row(self, i: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def save(self, path: Path) -> None:
        """One ``.npz`` file, uncompressed, without pickles; equal pools give equal bytes."""
        arrays = {field: getattr(self, field) for field in FIELDS}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, name=np.frombuffer(self.name.encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: Path) -> TokenPool:
        """From what `save` wrote; nothing in the file is executed."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(arrays["name"].tobytes().decode(), *(arrays[field] for field in FIELDS))
        except (ValueError, KeyError, OSError, BadZipFile) as error:
            raise ArtifactError(
                f"{path} is not a tokenised pool: {error}", hint="the file is damaged; delete it"
            ) from error


def text_keys(texts: Iterable[str]) -> npt.NDArray[np.uint8]:
    """SHA-256 of each text as UTF-8, (N, 32)."""
    joined = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def tokenise(pool: Pool, tokenizer: Any, max_length: int) -> TokenPool:
    """Ids of every text by a transformers tokenizer: special tokens added, cut to `max_length`."""
    rows: list[npt.NDArray[np.int32]] = []
    for start in range(0, len(pool.texts), ROWS_AT_ONCE):
        texts = list(pool.texts[start : start + ROWS_AT_ONCE])
        encoded = tokenizer(
            texts,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        rows.extend(np.asarray(ids, np.int32) for ids in encoded["input_ids"])
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    return TokenPool(
        name=pool.name,
        ids=np.concatenate(rows) if rows else np.empty(0, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels_N=pool.labels_N,
        keys=text_keys(pool.texts),
    )


def concat(pools: Sequence[TokenPool], name: str) -> TokenPool:
    """The pools one after the other; rows of pool k keep their order behind those of pool k - 1."""
    ends = np.cumsum([0, *(len(pool.ids) for pool in pools)])
    shifted = [pool.offsets[1:] + start for pool, start in zip(pools, ends, strict=False)]
    return TokenPool(
        name=name,
        ids=np.concatenate([pool.ids for pool in pools]),
        offsets=np.concatenate([np.zeros(1, np.int64), *shifted]),
        labels_N=np.concatenate([pool.labels_N for pool in pools]),
        keys=np.concatenate([pool.keys for pool in pools]),
    )


def id_table(
    pools: Sequence[TokenPool], vocab_size: int, special_ids: Iterable[int], *, pad_id: int
) -> IntArray:
    """Full id -> compact id, (V,): 0 padding, 1 unknown, then every special and occurring id, ascending."""
    occurs = np.zeros(vocab_size, bool)
    for pool in pools:
        occurs[pool.ids] = True
    occurs[list(special_ids)] = True
    occurs[pad_id] = False
    table = np.full(vocab_size, UNKNOWN, np.int64)
    table[occurs] = np.arange(UNKNOWN + 1, UNKNOWN + 1 + int(occurs.sum()))
    table[pad_id] = PADDING
    return table
