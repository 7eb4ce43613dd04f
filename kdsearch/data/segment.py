"""What a word is: in English what stands between spaces, in Chinese what rjieba cuts (extra `zh`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

from kdsearch.core.errors import DataError

Language: TypeAlias = Literal["en", "zh"]


def words_of(language: Language) -> Callable[[str], list[str]]:
    """A function that gives the words of a text in order, without spaces; DataError without rjieba."""
    if language == "en":
        return str.split
    cut = chinese_cutter()
    return lambda text: [word for word in cut(text) if not word.isspace()]


def chinese_cutter() -> Callable[[str], list[str]]:
    """Cuts Chinese text into words, nothing left out; DataError where rjieba is not installed."""
    try:
        import rjieba
    except ImportError as error:
        raise DataError(
            "Chinese words need the package `rjieba`",
            hint='pip install "kdsearch[zh]", or `vocabulary: characters` and no `augmented`',
        ) from error
    cut: Callable[[str], list[str]] = rjieba.cut
    return cut


def joined(words: Sequence[str], language: Language) -> str:
    """A text of these words: in Chinese with a space only where two would run into one (``Mate 9``)."""
    if language == "en":
        return " ".join(words)
    parts = list(words[:1])
    for before, word in pairwise(words):
        parts += [" ", word] if _latin(before[-1:]) and _latin(word[:1]) else [word]
    return "".join(parts)


def _latin(character: str) -> bool:
    return character.isascii() and character.isalnum()
