"""A TextCNN and a BiLSTM on 1,000 real messages: every door gives the same labels, logits within 1e-3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdsearch.export.bundle import export_student
from kdsearch.export.predict import Predictor
from kdsearch.export.standalone import RUNTIMES

ROOT = Path(__file__).resolve().parents[2]
BLOCKER = """
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "kdsearch", "onnx", "safetensors"):
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Blocker())
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from predict import Student
print(json.dumps(Student.open().logits(json.loads(sys.stdin.read())).tolist()))
"""
PIPELINE = """
import json, sys
import kdsearch.hf
from transformers import pipeline
classify = pipeline("text-classification", model=sys.argv[1], top_k=None, function_to_apply="none")
for answer in [classify(json.loads(sys.stdin.read()), batch_size=32, truncation=True)]:
    scores = [{each["label"]: each["score"] for each in found} for found in answer]
print(json.dumps([[found["genuine"], found["spam"]] for found in scores]))
"""


def said(*argv: str | Path, stdin: str = "") -> str:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, *map(str, argv)], input=stdin, capture_output=True, text=True, env=env
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip().splitlines()[-1]


def through_the_cli(folder: Path, texts: list[str]) -> list[list[float]]:
    path = folder.parent / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    answer = json.loads(said("-m", "kdsearch", "predict", folder, "--file", path, "--json"))
    return [list(found["logits"].values()) for found in answer["data"]["predictions"]]


@pytest.mark.parametrize("student", ["textcnn", "bilstm"])
def test_every_door_gives_the_same_on_real_messages(student: str, world_of_sms, tmp_path: Path) -> None:
    world, folder = world_of_sms, tmp_path / "student"
    texts = list(world.dataset.pools["test"].texts)
    assert len(texts) == 1000
    trial = world.trial(world.complete(student))
    export_student(world.store, world.study, trial, to=folder, formats=("hf", "onnx", "onnx-int8"))
    given = json.dumps(texts)
    doors: dict[str, Callable[[], list[list[float]]]] = {
        "pipeline": lambda: json.loads(said("-c", PIPELINE, folder, stdin=given)),
        "predict.py": lambda: json.loads(said("-c", BLOCKER, folder, stdin=given)),
        "kdsearch predict": lambda: through_the_cli(folder, texts),
    }
    answers = {name: np.asarray(ask()) for name, ask in doors.items()}
    wanted = answers["pipeline"]
    assert len(set(wanted.argmax(1))) == 2
    for name, found in answers.items():
        assert np.abs(found - wanted).max() <= 1e-3, name
        assert (found.argmax(1) == wanted.argmax(1)).all(), name
    _check_padding(folder, texts)


def _check_padding(folder: Path, texts: list[str]) -> None:
    """float32: the same alone and in any batch; int8: as the manifest says, and one at a time by itself."""
    parts = [texts[i : i + 32] for i in range(0, len(texts), 32)]
    for runtime in RUNTIMES:
        predictor = Predictor.open(folder, runtime=runtime)
        alone = predictor.logits(texts, batch_size=1)
        among = np.concatenate([predictor.logits(part, batch_size=len(part)) for part in parts])
        moved = np.abs(alone - among).max()
        if runtime == "onnx":
            assert moved <= 1e-4
        else:
            assert moved > 0 and np.array_equal(predictor.logits(texts), alone)
