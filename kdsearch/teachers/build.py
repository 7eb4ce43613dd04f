"""A small BERT made from a configuration, with word pieces learned from the texts it will be trained on.

For the quickstart and for texts that no pretrained encoder knows; it must be fine-tuned.
The word-piece trainer hands out ids in the order of a hash map, which differs between processes, and ids
decide ties; naming every character beforehand, in sorted order, makes the vocabulary a function of the texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from kdsearch.core.specteacher import BuildSpec
from kdsearch.teachers.source import quiet

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ALPHABET_SHARE = 4
"""At most one in so many word pieces is a character that begins a word; as many may continue one."""
CONTINUES = "##"


def train_word_pieces(texts: Sequence[str], vocab_size: int) -> dict[str, int]:
    """Word piece -> id; equal texts give equal vocabularies."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet, inner = _alphabet(tokenizer, texts, most=max(1, (vocab_size - len(SPECIAL)) // ALPHABET_SHARE))
    first = [*SPECIAL, *(CONTINUES + character for character in inner)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        min_frequency=2,
        show_progress=False,
        continuing_subword_prefix=CONTINUES,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


def _alphabet(tokenizer: Tokenizer, texts: Sequence[str], *, most: int) -> tuple[list[str], list[str]]:
    """The most frequent characters, and those of them that occur inside words; both sorted."""
    counts: Counter[str] = Counter()
    inner: set[str] = set()
    for text in texts:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        for word, _ in words:
            counts.update(word)
            inner.update(word[1:])
    frequent = sorted(counts, key=lambda character: (-counts[character], character))[:most]
    return sorted(frequent), sorted(inner.intersection(frequent))


def word_piece_tokenizer(vocabulary: dict[str, int], *, max_length: int) -> PreTrainedTokenizerFast:
    """A BERT tokenizer over a vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def build_teacher(
    spec: BuildSpec,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    max_length: int,
    seed: int,
    folder: Path,
) -> Path:
    """Write an untrained encoder and its tokenizer as an ordinary transformers folder."""
    vocabulary = train_word_pieces(texts, spec.vocab_size)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.hidden,
        max_position_embeddings=max_length,
        pad_token_id=vocabulary["[PAD]"],
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    torch.manual_seed(seed)
    with quiet():
        BertModel(config).save_pretrained(folder, safe_serialization=True)
        word_piece_tokenizer(vocabulary, max_length=max_length).save_pretrained(folder)
    return folder
