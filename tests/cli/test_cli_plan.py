"""`kdsearch study plan`: what it says, in every form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
STUDY = """\
version: 1
name: tiny
data:
  train: synthetic://spam_opinions?rows=120&seed=1
  validation: synthetic://spam_opinions?rows=40&seed=2
teacher:
  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 400}
  max_length: 24
  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 32}
students: [{type: bag, embed_dim: 8, hidden: 8}]
budget: {trials: 3, hours: 0.0001}
"""


def test_a_plan_says_everything_and_stores_nothing(kdsearch: Run, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    answer = kdsearch("study", "plan", "study.yaml", "--workers", "3", "--threads", "1")
    assert answer.code == 0, answer.err
    words = [line.split(" ")[0] for line in answer.out.splitlines()]
    assert {"study", "texts", "space", "teacher", "trials", "bag", "time", "disk", "measured"} <= set(words)
    assert "with 3 workers" in answer.out
    assert "the budget ends it after 0.0001 h" in answer.out
    assert "run it: kdsearch run study.yaml --workers 3" in answer.err
    assert not (tmp_path / "state").exists()


def test_a_plan_for_programs(inside: Run, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    data = inside("study", "plan", "study.yaml", "--json").data("plan")
    assert (data["study"], data["trials"], data["rows"]["train"]) == ("tiny", 3, 120)
    assert data["ends_by_hours"] is True
    assert data["kinds"][0]["rates"]["num_params"] > 0
    assert data["hours"] > 0 and data["disk_mb"] > 0 and data["assumed"]
    (tmp_path / "study.yaml").write_text(STUDY.replace("bag", "bagg"))
    assert inside("study", "plan", "study.yaml", "--json").error(2)["code"] == "study_file"
