"""Vocabularies for students that do not read the teacher's tokens: words or characters of the training texts.

Each is an ordinary fast tokenizer, so that what measures, exports and predicts needs to know of none.

Notable:
- ``tokenizer.json`` alone segments. Chinese words are cut by rjieba once, with their counts; a Unigram model
  of these counts, plus single characters, then finds the likeliest cut, and rjieba is not needed in use.
- English is cut as the Penn Treebank does where word vectors rely on it: ``don't`` is ``do`` and ``n't``.
- No class or separator token: an empty text has no tokens. Same texts, same vocabulary: ties by spelling.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Literal, TypeAlias

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from kdsearch.core.errors import DataError
from kdsearch.data.segment import Language, chinese_cutter

Kind: TypeAlias = Literal["words", "characters"]

PAD = "[PAD]"
MIN_COUNT = 2
"""Rarer words are unknown, unless they have a vector; learned from so little, they would be noise."""
HALF = 0.5
"""Count of a character that is never a word by itself: less than of any that is."""
WORD = r"\w+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\d+(?:[.,]\d+)*|\w+|[^\w\s]"
CHINESE_WORD = r"\p{Han}+|\d+(?:\.\d+)*|[\w&&[^\p{Han}]]+|[^\w\s]"
"""Runs of Chinese characters, which are then cut into words, and the words and marks between them."""
CHARACTER = r"\S"


def build(
    kind: Kind,
    texts: Iterable[str],
    *,
    language: Language,
    max_length: int,
    known: Collection[str] = (),
    mask_token: str | None = "[MASK]",
    unk_token: str = "[UNK]",
) -> Any:
    """A `PreTrainedTokenizerFast` over what occurs twice in the texts, or once if `known` has it.

    `mask_token` and `unk_token` are the teacher's, so that augmented texts mean the same to both; the texts
    to count are best those that were not made from others, or no word of them is rare.
    Raises DataError for Chinese words without rjieba, and where the texts hold nothing.
    """
    special = [PAD, unk_token, *([] if mask_token is None else [mask_token])]
    parts = count(kind, (_without(special, text) for text in texts), language=language)
    kept = _kept(parts, known)
    if not kept:
        raise DataError(f"the training texts hold no {kind} that occur twice or have a vector")
    chinese_words = kind == "words" and language == "zh"
    model = _unigram(parts, kept, known, special) if chinese_words else _word_level(kept, special)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(kind, language)
    tokenizer.pre_tokenizer = _splitter(kind, language)
    if language == "zh":
        tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return _wrapped(tokenizer, max_length, mask_token, unk_token)


def count(kind: Kind, texts: Iterable[str], *, language: Language) -> Counter[str]:
    """How often each word or character occurs, spelled as the vocabulary spells it."""
    normalize, split = _normalizer(kind, language), _splitter(kind, language)
    found: Counter[str] = Counter()
    for text in texts:
        found.update(part for part, _ in split.pre_tokenize_str(normalize.normalize_str(text)))
    return _cut_further(found) if kind == "words" and language == "zh" else found


def _without(special: list[str], text: str) -> str:
    """A masked word of an augmented text is no word."""
    for token in special:
        text = text.replace(token, " ")
    return text


def _cut_further(runs: Counter[str]) -> Counter[str]:
    cut, found = chinese_cutter(), Counter[str]()
    for run, times in runs.items():
        for word in cut(run):
            found[word] += times
    return found


def _normalizer(kind: Kind, language: Language) -> Any:
    """One spelling: no compatibility forms, no case, no typographic apostrophes."""
    steps = [normalizers.NFKC(), normalizers.Replace("’", "'")]
    if kind == "words" and language == "en":
        # Chinese characters in an English text are words of one character.
        steps.append(normalizers.BertNormalizer(strip_accents=False, lowercase=False))
    return normalizers.Sequence([*steps, normalizers.Lowercase()])


def _splitter(kind: Kind, language: Language) -> Any:
    pattern = CHARACTER if kind == "characters" else CHINESE_WORD if language == "zh" else WORD
    return pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)


def _kept(parts: Counter[str], known: Collection[str]) -> Counter[str]:
    vectors = known if isinstance(known, (set, frozenset, dict)) else set(known)
    return Counter({part: n for part, n in parts.items() if n >= MIN_COUNT or part in vectors})


def _ordered(kept: Counter[str], special: list[str]) -> list[str]:
    return sorted(set(kept) - set(special), key=lambda part: (-kept[part], part))


def _word_level(kept: Counter[str], special: list[str]) -> Any:
    order = [*special, *_ordered(kept, special)]
    return models.WordLevel({part: i for i, part in enumerate(order)}, unk_token=special[1])


def _unigram(parts: Counter[str], kept: Counter[str], known: Collection[str], special: list[str]) -> Any:
    """Scores are logarithms of relative counts; special tokens are never what a text is cut into."""
    characters: Counter[str] = Counter()
    for part, times in parts.items():
        for character in part:
            characters[character] += times
    total = kept.total() + 1
    order = _ordered(kept, special)
    order += sorted(character for character in _kept(characters, known) if character not in kept)
    scores = [(part, math.log((kept[part] or HALF) / total)) for part in order]
    return models.Unigram([*((token, -1e4) for token in special), *scores], 1, False)


def _wrapped(tokenizer: Tokenizer, max_length: int, mask_token: str | None, unk_token: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=unk_token,
        mask_token=mask_token,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side="right",
    )
