"""Word vectors in word2vec's text form, also gzipped, and the embedding table that they make.

Notable:
- Read line by line, keeping only the words asked for: a file of millions of words needs no memory for them.
  (gensim reads the whole file, and names no line when one is wrong.)
- The first line, "words width", may be missing, as in GloVe's own files.
- A word is what stands before the last `width` columns, so that words with spaces in them do no harm; of a
  word that stands twice the first counts.

Letters: V embedding rows, E width of a vector.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kdsearch.core.errors import DataError, Where
from kdsearch.data.tokens import PADDING, UNKNOWN, IntArray, TokenPool

FloatArray = npt.NDArray[np.float32]

GZIP_MAGIC = b"\x1f\x8b"
BINARY = "is it word2vec's binary form? Save it as text: gensim's `save_word2vec_format(path, binary=False)`"


@dataclass(frozen=True)
class WordVectors:
    """Words and, beside each, its vector."""

    words: tuple[str, ...]
    vectors_VE: FloatArray

    @property
    def width(self) -> int:
        """Columns of a vector."""
        return int(self.vectors_VE.shape[1])


def vector_width(path: Path) -> int:
    """Columns of a vector, from the first lines alone."""
    with _opened(path) as file:
        return _start(file, path).width


def read_vectors(path: Path, only: Collection[str] | None = None) -> WordVectors:
    """The vectors of the words in `only`, or of all; raises DataError with the line that is wrong."""
    wanted = None if only is None else frozenset(word.encode(errors="replace") for word in only)
    found: dict[bytes, FloatArray] = {}
    with _opened(path) as file:
        start, read = _start(file, path), 0
        for number, line in start.lines:
            read += 1
            word, *columns = line.rsplit(None, start.width)
            if word not in found and (wanted is None or word in wanted):
                found[word] = _vector(columns, start.width, path, number)
    if read < start.promised:
        message = f"{path}: {read} words instead of the {start.promised} of its first line"
        raise DataError(message, hint="the file is cut off; copy or download it again")
    vectors = np.stack(list(found.values())) if found else np.empty((0, start.width), np.float32)
    return WordVectors(tuple(word.decode(errors="replace") for word in found), vectors)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            magic = raw.read(len(GZIP_MAGIC))
            raw.seek(0)
            unpacked: Any = gzip.GzipFile(fileobj=raw) if magic == GZIP_MAGIC else raw
            yield unpacked
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        hint = "copy or download it again"
        raise DataError(f"{path} is a damaged gzip file: {error}", hint=hint) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


class _Start(NamedTuple):
    width: int
    promised: int
    """Words that the first line speaks of; 0 where it is no header."""
    lines: Iterator[tuple[int, bytes]]
    """Those with vectors, numbered as in the file."""


def _start(file: IO[bytes], path: Path) -> _Start:
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    number, line = next(lines, (1, b""))
    promised, width, header = 0, len(line.split()) - 1, line.split()
    if len(header) == 2 and all(column.isdigit() for column in header):
        promised, width = int(header[0]), int(header[1])
        number, line = next(lines, (number + 1, b""))
    found = len(line.split()) - 1
    if width < 1 or found < width or (promised and found > width):
        shown = line[:40].decode(errors="replace").strip()
        expected = f"a word and {width} numbers" if promised else "a word and its numbers"
        where = Where(file=str(path), line=number)
        raise DataError(f"no word vectors: {shown!r} is not {expected}", hint=BINARY, where=where)
    return _Start(width, promised, chain([(number, line)], lines))


def _vector(columns: Sequence[bytes], width: int, path: Path, number: int) -> FloatArray:
    where = Where(file=str(path), line=number)
    if len(columns) != width:
        raise DataError(f"{len(columns)} numbers instead of {width}", hint=BINARY, where=where)
    try:
        vector = np.array(columns, dtype="S").astype(np.float32)
    except ValueError as error:
        raise DataError(f"not a vector of numbers: {error}", hint=BINARY, where=where) from error
    if not np.isfinite(vector).all():
        raise DataError("a vector with NaN or infinity in it", hint="remove the line", where=where)
    return vector


# ---------------------------------------------------------------- the embedding table


def token_counts(pools: Sequence[TokenPool], vocab_size: int) -> IntArray:
    """How often each of the tokenizer's ids occurs in the pools."""
    counts = np.zeros(vocab_size, np.int64)
    for pool in pools:
        counts += np.bincount(pool.ids, minlength=vocab_size)
    return counts


def table(
    tokenizer: Any, id_table: IntArray, num_tokens: int, vectors: WordVectors, *, counts: IntArray, seed: int
) -> tuple[FloatArray, float]:
    """The embedding (num_tokens, E) of a student, and the share of running tokens that have no vector.

    Padding is zero. A token without a vector gets one drawn evenly, of the same variance as the others (Kim
    2014); which one depends on the seed and its row alone. Special tokens are no words: they are counted
    only where they stand for an unknown one.
    """
    row_of = {word: i for i, word in enumerate(vectors.words)}
    spread = float(np.sqrt(3 * vectors.vectors_VE.var())) if len(vectors.words) else 0.0
    table_VE = np.random.default_rng(seed).uniform(-spread, spread, (num_tokens, vectors.width))
    table_VE[PADDING] = 0
    special = set(tokenizer.all_special_ids)
    missing = np.ones(len(id_table), bool)
    for token, token_id in tokenizer.get_vocab().items():
        row = None if token_id in special else row_of.get(_word(tokenizer, token, row_of))
        if row is not None:
            missing[token_id] = False
            if id_table[token_id] > UNKNOWN:
                table_VE[id_table[token_id]] = vectors.vectors_VE[row]
    words = counts.copy()
    words[[i for i in special if i != tokenizer.unk_token_id]] = 0
    return table_VE.astype(np.float32), float(words[missing].sum() / max(1, words.sum()))


def _word(tokenizer: Any, token: str, known: Collection[str]) -> str:
    """The token, or what it spells: a vocabulary may mark the start of a word (``▁the``, ``Ġthe``)."""
    if token in known or token.isalnum():
        return token
    return str(tokenizer.convert_tokens_to_string([token])).strip()
