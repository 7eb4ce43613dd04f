"""How a study's teacher is fine-tuned: linear decay of the rate, and the anchor of least loss teaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from kdsearch.core.records import Scores
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.distill import fit as fit_module
from kdsearch.measure import quality
from kdsearch.store import reads
from kdsearch.store.connect import Store

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


def test_the_anchor_of_least_loss_teaches_even_where_a_later_one_is_more_often_right(
    store: Store, write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Scores] = []

    def score(*args: Any, **kwargs: Any) -> Scores:
        """Quality rises from anchor to anchor, and the second has the least loss."""
        n = len(scored)
        scored.append(replace(quality.score(*args, **kwargs), quality=0.1 * n, nll=[3.0, 1.0, 2.0][n % 3]))
        return scored[-1]

    monkeypatch.setattr(fit_module, "score", score)
    finish(write_study(trials=1, replace=("anchors: 2", "anchors: 3")))
    sha256 = reads.study(store.engine, "tiny").prepared
    assert sha256 is not None
    prepared = Prepared.load(store.blobs, sha256)
    assert len(set(prepared.anchors)) == 3
    assert prepared.teacher == prepared.anchors[1]


def test_the_rate_falls_to_nothing_while_the_students_keep_theirs(
    write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def note(self: torch.optim.AdamW) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    finish(write_study(trials=1, epochs=1))
    teacher, student = rates[:6], rates[6:]  # 160 rows: 2 anchors of 3 steps, then 5 steps
    assert len(student) == 5
    assert len(set(student)) == 1
    assert 1e-3 >= teacher[0] > teacher[1] > teacher[2] > teacher[3] > teacher[4] > teacher[5] > 0
    assert teacher[5] < 2e-4
