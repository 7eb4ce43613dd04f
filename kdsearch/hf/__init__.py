"""Importing this module registers exported students with transformers' Auto classes.

After ``import kdsearch.hf``, ``pipeline("text-classification", model=DIR)`` and
``AutoModelForSequenceClassification.from_pretrained(DIR)`` load what `kdsearch export` wrote; no remote
code is run.
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from kdsearch.hf.modeling import KdsearchConfig, KdsearchStudent

__all__ = ["KdsearchConfig", "KdsearchStudent"]

AutoConfig.register(KdsearchConfig.model_type, KdsearchConfig, exist_ok=True)
AutoModelForSequenceClassification.register(KdsearchConfig, KdsearchStudent, exist_ok=True)
AutoTokenizer.register(KdsearchConfig, fast_tokenizer_class=PreTrainedTokenizerFast, exist_ok=True)
