"""Further texts for the teacher to label, made from the training texts: masking, swapping, n-grams.

After Tang et al. 2019 (arXiv 1903.12136, section 4.3), where the swap stands for their exchange of words of
the same part of speech, which would need a tagger.

Notable:
- Every row differs from the text it was made from, and where it can be from the text's other rows: what came
  out the same is drawn again. A text of one word can only be masked; in Chinese its characters are varied.
- Rows follow their texts: the first N texts give the first N * times rows, however many texts follow.
- Random numbers come from `random.Random(text).random()` alone, which Python promises to keep.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from kdsearch.core.errors import DataError
from kdsearch.core.specdata import AugmentSpec
from kdsearch.data.segment import Language, joined, words_of

NAME = "augmented"
ATTEMPTS = 20
"""Draws for one row before a change is forced."""


def stand_in(tokenizer: Any, spec: AugmentSpec) -> str | None:
    """The token of a transformers tokenizer that stands for a masked word; None where nothing is masked."""
    if not spec.mask:
        return None
    token: str | None = tokenizer.mask_token if spec.token == "mask" else tokenizer.unk_token
    if token is None:
        others = {"mask": "`token: unknown`", "unknown": "`token: mask`"}
        raise DataError(
            f"data.augmented: the teacher's tokenizer has no token for {spec.token!r}",
            hint=f"{others[spec.token]}, or `mask: 0`",
        )
    return token


def augment(
    texts: Sequence[str], spec: AugmentSpec, *, language: Language, mask_token: str | None
) -> tuple[str, ...]:
    """`times` rows of each text, one text after the other; DataError if words are masked by no token."""
    if spec.mask and mask_token is None:
        raise DataError(
            "data.augmented: no token is known that stands for a masked word",
            hint="`mask: 0` under `augmented:`, or a teacher whose tokenizer has a mask token",
        )
    chance, split = random.Random(f"augment/1/{spec.seed}"), words_of(language)
    rows: list[str] = []
    for text in texts:
        words = _units(split(text), language)
        rows += _variants(chance, words, spec, language, mask_token or "") if words else [text] * spec.times
    return tuple(rows)


def _units(words: list[str], language: Language) -> list[str]:
    """What is masked, swapped and cut: words, but of a single Chinese word its characters."""
    return list(words[0]) if language == "zh" and len(words) == 1 else words


def _variants(
    chance: random.Random, words: list[str], spec: AugmentSpec, language: Language, mask_token: str
) -> list[str]:
    source, found = joined(words, language), list[str]()
    for _ in range(spec.times):
        draws = (vary(chance, words, spec, mask_token) for _ in range(ATTEMPTS if len(words) > 1 else 0))
        saying = (draw for draw in draws if any(word != mask_token for word in draw))
        fresh = (text for draw in saying if (text := joined(draw, language)) not in (source, *found))
        forced = (joined(change, language) for change in _changes(chance, words, spec, mask_token))
        found.append(next(chain(fresh, (text for text in forced if text != source)), source))
    return found


def vary(chance: random.Random, words: Sequence[str], spec: AugmentSpec, mask_token: str) -> list[str]:
    """Words masked, then neighbours swapped, then perhaps an n-gram of that: as it falls, even unchanged."""
    masked = [mask_token if chance.random() < spec.mask else word for word in words]
    swapped = _swapped(chance, masked, spec.swap)
    return _ngram(chance, swapped, spec.max_ngram) if chance.random() < spec.ngram else swapped


def _swapped(chance: random.Random, words: list[str], share: float) -> list[str]:
    i = 0
    while share and i < len(words) - 1:
        if chance.random() < share:
            words[i], words[i + 1] = words[i + 1], words[i]
            i += 1  # a word moves once
        i += 1
    return words


def _ngram(chance: random.Random, words: list[str], longest: int) -> list[str]:
    n = min(1 + _below(chance, longest), len(words))
    start = _below(chance, len(words) - n + 1)
    return words[start : start + n]


def _changes(
    chance: random.Random, words: list[str], spec: AugmentSpec, mask_token: str
) -> Iterator[list[str]]:
    """One change each, of the kinds that the study wants, best first."""
    if spec.swap and len(words) > 1:
        for i in sorted(range(len(words) - 1), key=lambda _: chance.random()):
            yield [*words[:i], words[i + 1], words[i], *words[i + 2 :]]
    if spec.ngram and len(words) > 1:
        yield _ngram(chance, words, min(spec.max_ngram, len(words) - 1))
    if spec.mask:
        i = _below(chance, len(words))
        yield [*words[:i], mask_token, *words[i + 1 :]]


def _below(chance: random.Random, end: int) -> int:
    return int(chance.random() * end)


def unchanged(rows: Sequence[str], texts: Sequence[str], times: int) -> int:
    """How many rows say what their text says: it has one word, or what is asked for changes nothing."""
    bare = ["".join(text.split()) for text in texts]
    return sum("".join(row.split()) == bare[i // times] for i, row in enumerate(rows))
