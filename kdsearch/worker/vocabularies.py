"""The study's texts as students may read them: the teacher's tokens, words, characters; and what vectors fit.

Every reading has the same rows in the same order under the same keys, so that signals align by row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kdsearch.core.blobs import put_tree
from kdsearch.data import tokens, vectors, vocabularies
from kdsearch.data.dataset import Dataset
from kdsearch.data.prepared import TEACHER_VOCABULARY, TRAINING_POOLS, Vocabulary
from kdsearch.data.tokens import TokenPool
from kdsearch.data.vectors import WordVectors
from kdsearch.data.vocabularies import Kind
from kdsearch.teachers import source
from kdsearch.worker.preparing import Preparing
from kdsearch.worker.wanted import Wanted

OWN_TEXTS = tuple(name for name in TRAINING_POOLS if name != "augmented")
"""What a vocabulary is made of: augmented texts would make every word that is learned from a frequent one."""
UNKNOWN = "[UNK]"
"""What the texts of a teacher without a token for the unknown get."""


@dataclass(frozen=True)
class Reading:
    """The pools by one tokenizer."""

    tokenizer: Any
    """A fast transformers tokenizer."""
    folder: Path
    """Where its files lie."""
    pools: Mapping[str, TokenPool]

    @property
    def pad_id(self) -> int:
        """Id of padding."""
        return int(self.tokenizer.pad_token_id)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return max(len(self.tokenizer), int(self.tokenizer.vocab_size))

    @property
    def training(self) -> list[TokenPool]:
        """The pools that students may be trained on."""
        return [self.pools[name] for name in TRAINING_POOLS if name in self.pools]

    @cached_property
    def id_table(self) -> npt.NDArray[np.int64]:
        """(V,): tokenizer id -> row of a student's embedding."""
        special = self.tokenizer.all_special_ids
        return tokens.id_table(self.training, self.vocab_size, special, pad_id=self.pad_id)

    @property
    def num_tokens(self) -> int:
        """Rows of a student's embedding."""
        return int(self.id_table.max()) + 1

    def store(self, preparing: Preparing, name: str) -> Vocabulary:
        """As the manifest knows it."""
        folder = preparing.folder / f"tokenizer-{name}"
        self.tokenizer.save_pretrained(folder)
        return Vocabulary(
            tokenizer=put_tree(preparing.context.store.blobs, folder),
            vocab_size=self.vocab_size,
            num_tokens=self.num_tokens,
            pad_id=self.pad_id,
            id_table=preparing.put_array(self.id_table),
            tokens={pool: _put_pool(preparing, read) for pool, read in self.pools.items()},
        )


def _put_pool(preparing: Preparing, pool: TokenPool) -> str:
    path = preparing.folder / "pool.npz"
    pool.save(path)
    return preparing.context.store.blobs.put(path)


def read_as(
    preparing: Preparing,
    dataset: Dataset,
    tokenizer: Any,
    folder: Path,
    *,
    of: Collection[str] | None = None,
    what: str = "",
) -> Reading:
    """Every pool (or those of some names) by a tokenizer."""
    pools = {}
    for name, pool in dataset.pools.items():
        if of is None or name in of:
            preparing.say(f"tokenising {name}{what}: {len(pool.texts)} texts")
            pools[name] = tokens.tokenise(pool, tokenizer, preparing.context.spec.teacher.max_length)
    return Reading(tokenizer, folder, pools)


def built(preparing: Preparing, dataset: Dataset, own: Reading, wanted: Wanted) -> dict[str, Reading]:
    """The vocabularies, beside the teacher's, that a student may read: made from the training texts."""
    found: dict[str, Reading] = {}
    for kind in cast(tuple[Kind, ...], wanted.vocabularies):
        preparing.say(f"building the vocabulary of {kind}")
        spec = preparing.context.spec
        texts = [text for name in OWN_TEXTS if name in dataset.pools for text in dataset.pools[name].texts]
        tokenizer = vocabularies.build(
            kind,
            texts,
            language=spec.data.language,
            max_length=spec.teacher.max_length,
            known=_known(preparing, kind, texts) if f"vectors/{kind}" in wanted.tables else (),
            mask_token=own.tokenizer.mask_token,
            unk_token=own.tokenizer.unk_token or UNKNOWN,
        )
        folder = preparing.folder / f"vocabulary-{kind}"
        tokenizer.save_pretrained(folder)
        # Read back, so that what is used here is what whoever loads it uses.
        found[kind] = read_as(preparing, dataset, source.load_tokenizer(folder), folder, what=f" as {kind}")
    return found


def _known(preparing: Preparing, kind: Kind, texts: list[str]) -> Collection[str]:
    """What occurs in the texts and has a vector."""
    occurs = vocabularies.count(kind, texts, language=preparing.context.spec.data.language)
    return _vectors(preparing, set(occurs)).words


def _vectors(preparing: Preparing, only: Collection[str]) -> WordVectors:
    inputs = preparing.context.inputs
    assert inputs.vectors is not None, "asked for word vectors of a study that has none"
    return vectors.read_vectors(preparing.context.store.blobs.open(inputs.vectors), only)


@dataclass(frozen=True)
class Tables:
    """Word vectors that students may start from, cut to the tokens that occur."""

    arrays: dict[str, str]
    oov_share: dict[str, float]


def prepare_tables(
    preparing: Preparing, readings: Mapping[str, Reading], start: Path, wanted: Wanted
) -> Tables:
    """Every table that can be asked for; `start` holds the teacher as it was before fine-tuning."""
    tables = Tables({}, {})
    for name in wanted.tables:
        origin, _, vocabulary = name.partition("/")
        reading = readings[vocabulary or TEACHER_VOCABULARY]
        if origin == "vectors":
            preparing.say(f"looking up word vectors for the vocabulary {vocabulary}")
            table_VE, tables.oov_share[name] = _from_file(preparing, reading)
        else:
            table_VE = source.word_table(start, reading.id_table, reading.num_tokens)
        tables.arrays[name] = preparing.put_array(table_VE)
    return tables


def _from_file(preparing: Preparing, reading: Reading) -> tuple[npt.NDArray[np.float32], float]:
    """Table (num_tokens, E), and the share of running tokens that have no vector in the file."""
    tokenizer = reading.tokenizer
    known = set(tokenizer.get_vocab())
    spelled = {str(tokenizer.convert_tokens_to_string([token])).strip() for token in known}
    return vectors.table(
        tokenizer,
        reading.id_table,
        reading.num_tokens,
        _vectors(preparing, known | spelled),
        counts=vectors.token_counts(reading.training, reading.vocab_size),
        seed=preparing.context.spec.training.seed,
    )
