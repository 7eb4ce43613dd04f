"""The whole way as a person goes it, command by command: begin, ask for a trial, work, choose, export."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli.enqueue import _assignment, changed
from kdsearch.core.errors import UsageError
from kdsearch.store.connect import Store

Run = Callable[..., Any]
STUDY = """\
version: 1
name: tiny
data:
  train: synthetic://spam_opinions?rows=120&seed=1
  validation: synthetic://spam_opinions?rows=60&seed=2
teacher:
  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 400}
  max_length: 24
  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 1}
students: [{type: bag, embed_dim: [8, 16], hidden: 8, dropout: 0.1, embedding: random}]
training: {epochs: 1, batch_size: 32}
latency: {warmup: 2, min_queries: 10, min_seconds: 0}
budget: {trials: 3}
"""
CHAIN = 'kdsearch export tiny --trial "$(kdsearch best tiny --within latency_ms=1000 -q)" --to out -q'


@pytest.fixture
def created(inside: Run, store: Store, tmp_path: Path) -> str:
    (tmp_path / "study.yaml").write_text(STUDY)
    assert inside("study", "create", "study.yaml", storage=store.url).code == 0
    return store.url


def test_from_a_file_to_a_folder(
    inside: Run, created: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    asked = inside(
        "trial", "enqueue", "tiny", "--set", "bag.embed_dim=16", "--set", "scheme=offline", storage=created
    )
    assert asked.code == 0, asked.err
    number = int(asked.out.split()[1])
    env = {**environment, "KDSEARCH_STORAGE": created, "PYTHON": sys.executable}
    shell = 'kdsearch() { "$PYTHON" -m kdsearch "$@"; }; set -e; '
    work = "kdsearch worker start --study tiny >worker.log 2>&1; "
    ran = subprocess.run(
        ["bash", "-c", shell + work + CHAIN], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr + (tmp_path / "worker.log").read_text()
    assert ran.stdout == "out\n"
    best = inside("best", "tiny", "--within", "latency_ms=1000", "-q", storage=created).out
    manifest = json.loads((tmp_path / "out" / "kdsearch.json").read_text())
    assert str(manifest["trial"]) == best.strip()
    trial = inside("trial", "show", "tiny", str(number), "--json", storage=created).data("trial")
    assert (trial["scheme"], trial["params"]["bag.embed_dim"], trial["state"]) == ("offline", 16, "complete")
    within = inside("best", "tiny", "--within", "latency_ms=0.0000001", "-q", storage=created)
    assert (within.code, within.out) == (6, "")


def test_what_cannot_be_asked_for(inside: Run, created: str) -> None:
    def error(*words: str) -> Any:
        return inside("trial", "enqueue", "tiny", *words, "--json", storage=created).error(2)

    assert "nothing was asked for" in error()["message"]
    assert "embed_dim" in error("--set", "bag.embed_dmi=16")["hint"]
    assert "bag.embed_dim" in error("--set", "bag.embed_dim=9")["message"]
    assert "says nothing" in error("--set", "bag.embed_dim")["message"]


def test_values_are_read_as_in_a_study_file() -> None:
    texts = ("a=128", "a=1e-4", "a=true", "a=[2, 3]", "a=kl", "a = non-static")
    assert [_assignment(text)[1] for text in texts] == [128, 1e-4, True, [2, 3], "kl", "non-static"]
    for wrong in ("a", "=1", "a=", "a=[1"):
        with pytest.raises(UsageError):
            _assignment(wrong)


def test_another_student_leaves_the_parameters_of_the_first_behind() -> None:
    trial = {"student": "bag", "bag.hidden": 8, "scheme": "none", "learning_rate": 1e-3}
    assert changed(trial, {"student": "bilstm", "bilstm.hidden": 64}) == {
        "student": "bilstm",
        "bilstm.hidden": 64,
        "scheme": "none",
        "learning_rate": 1e-3,
    }
    assert changed(trial, {"bag.hidden": 16}) == {**trial, "bag.hidden": 16}
