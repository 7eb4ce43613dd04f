"""example_inputs.json: fixed texts with the answers that an exported student gives to them.

The texts are written here, for everybody: a folder that is published must not carry what customers wrote,
and what is searched on is often just that. They are no measure of quality, only of being the same student.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdsearch.export.standalone import EXAMPLES

FloatArray = npt.NDArray[np.float32]

ABOUT = (
    "Fixed texts that ship with kdsearch, never the study's own, and the logits of this student: "
    "`python predict.py --check` and `kdsearch verify` answer them again."
)
LONG = "The meeting moved from Monday to Thursday, so please tell everybody who wanted to come. " * 40
TEXTS: tuple[tuple[str, str], ...] = (
    ("a plain sentence", "The parcel arrived two days later than promised, but everything was in it."),
    ("a short one", "ok"),
    ("one that asks for something", "Congratulations! Call now to claim your free prize of $1,000."),
    ("an opinion", "I would not buy this again: the battery is empty after an hour."),
    ("no text at all", ""),
    ("white space alone", " \t\n "),
    ("a long text, which is cut", LONG),
    ("emoji", "see you later 😀👍🏽 👩‍👩‍👧 ☃"),
    ("several scripts", "Привет, 世界! مرحبا καλημέρα नमस्ते สวัสดี hello"),
    ("Chinese", "这家餐厅的味道很好，下次还会再来。"),
    ("numbers, marks and an address", "№ 42 -- 3.14%; https://example.org/?q=a&b=c #tag @name <b>"),
)


def texts() -> list[str]:
    """The examples' texts, in order."""
    return [text for _, text in TEXTS]


def write_examples(
    folder: Path, labels: Sequence[str], logits: Mapping[str, FloatArray], tolerance: Mapping[str, float]
) -> None:
    """Write the examples with the logits (N, C) of each precision."""
    data = {
        "about": ABOUT,
        "labels": list(labels),
        "tolerance": dict(tolerance),
        "examples": [
            {
                "what": what,
                "text": text,
                "expected": {name: _expected(found[i], labels) for name, found in logits.items()},
            }
            for i, (what, text) in enumerate(TEXTS)
        ],
    }
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / EXAMPLES).write_text(text + "\n", encoding="utf-8")


def _expected(logits_C: FloatArray, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "label": labels[int(logits_C.argmax())],
        "logits": [round(float(logit), 6) for logit in logits_C],
    }
