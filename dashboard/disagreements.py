"""Where a student and its teacher say different things: texts of the validation pool.

Letters: N rows, C classes.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SETTING = "KDSEARCH_SHOW_TEXTS"
MOST_SHOWN = 200
LONGEST = 500
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Disagreement:
    """A row on which the two differ."""

    text: str
    label: str | None
    teacher: str
    student: str
    sure: float
    """The student's probability of what it says."""

    @property
    def right(self) -> str:
        """Who is right, where somebody knows."""
        if self.label is None:
            return "unknown"
        return {self.teacher: "teacher", self.student: "student"}.get(self.label, "neither")


@dataclass(frozen=True)
class Disagreements:
    """Those that are shown, the surest mistakes first, and how many there are."""

    shown: Sequence[Disagreement]
    num_rows: int
    num: int
    num_student_right: int
    num_teacher_right: int


def allowed(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this dashboard may show texts: yes, unless the setting says no."""
    return env.get(SETTING, "").strip().lower() not in ("0", "no", "off", "false")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The validation pool as the study stored it: gzipped lines of JSON."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def disagreements(
    rows: Sequence[Mapping[str, Any]], logits_NC: npt.NDArray[np.floating[Any]], labels: Sequence[str]
) -> Disagreements:
    """Of a student's logits with what the teacher says of the same rows."""
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    exp_NC = np.exp(shifted_NC.astype(np.float64))
    sure_N = exp_NC.max(axis=1) / exp_NC.sum(axis=1)
    said_N = logits_NC.argmax(axis=1)
    found = [
        Disagreement(_cut(str(row["text"])), row.get("label"), str(row["teacher"]), labels[said], float(sure))
        for row, said, sure in zip(rows, said_N, sure_N, strict=True)
        if row.get("teacher") is not None and row["teacher"] != labels[said]
    ]
    found.sort(key=lambda each: (each.right == "student", -each.sure))
    return Disagreements(
        shown=found[:MOST_SHOWN],
        num_rows=len(rows),
        num=len(found),
        num_student_right=sum(each.right == "student" for each in found),
        num_teacher_right=sum(each.right == "teacher" for each in found),
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
