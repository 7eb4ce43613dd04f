"""predict.py of an export: in a process that has numpy, tokenizers and onnxruntime, and nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdsearch.export import examples, standalone
from kdsearch.export.bundle import export_student
from kdsearch.export.predict import Predictor

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "kdsearch", "onnx", "safetensors", "pandas"}:
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Blocker())
import runpy
script = sys.argv[1]
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""
Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def folder(world, tmp_path: Path) -> Path:
    number = world.complete("bilstm")
    to = tmp_path / "student"
    export_student(world.store, world.study, world.trial(number), to=to, formats=("onnx", "onnx-int8"))
    return to


def script(folder: Path, *argv: str | Path, stdin: str = "") -> Ran:
    return subprocess.run(
        [sys.executable, "-B", "-c", BLOCKED, str(folder / "predict.py"), *map(str, argv)],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder.parent,
    )


def test_arguments_standard_input_and_files_are_answered(folder: Path, tmp_path: Path, world) -> None:
    texts = [text for text in world.dataset.pools["validation"].texts if text][:12]
    expected = [found.label for found in Predictor.open(folder).predict(texts)]
    assert len(set(expected)) == 2
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "a.csv").write_text("id,said\n" + "".join(f"1,{text}\n" for text in texts))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"said": text}) + "\n" for text in texts))
    ways = [
        script(folder, *texts),
        script(folder, stdin="\n".join(texts)),
        script(folder, "--file", tmp_path / "a.txt"),
        script(folder, "--file", tmp_path / "a.csv", "--text", "said"),
        script(folder, "--file", tmp_path / "a.jsonl", "--text", "said"),
    ]
    for ran in ways:
        assert ran.returncode == 0, ran.stderr
        assert [line.split("\t")[0] for line in ran.stdout.splitlines()] == expected
    as_json = [json.loads(line) for line in script(folder, "--json", *texts).stdout.splitlines()]
    assert [each["label"] for each in as_json] == expected
    assert all(abs(sum(each["probabilities"].values()) - 1) < 1e-6 for each in as_json)
    small = script(folder, "--runtime", "onnx-int8", *texts).stdout
    wanted = [found.label for found in Predictor.open(folder, runtime="onnx-int8").predict(texts)]
    assert [line.split("\t")[0] for line in small.splitlines()] == wanted


def test_check_answers_the_examples_again(folder: Path) -> None:
    ran = script(folder, "--check")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert [line.partition(":")[0] for line in ran.stdout.splitlines()] == ["onnx", "onnx-int8"]
    path = folder / "example_inputs.json"
    data = json.loads(path.read_text())
    logits = data["examples"][3]["expected"]["float32"]["logits"]
    logits[0] += 0.01
    path.write_text(json.dumps(data))
    ran = script(folder, "--check")
    assert ran.returncode == 7 and "an opinion" in ran.stdout and "off by 0.01" in ran.stdout


def test_as_a_module(folder: Path, world) -> None:
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from predict import Student\n"
        "print(json.dumps(Student.open().logits(json.loads(sys.stdin.read())).tolist()))"
    )
    texts = list(world.dataset.pools["validation"].texts)
    argv = [sys.executable, "-B", "-c", code, str(folder)]
    ran = subprocess.run(argv, input=json.dumps(texts), capture_output=True, text=True)
    assert np.allclose(json.loads(ran.stdout), Predictor.open(folder).logits(texts), atol=1e-6), ran.stderr


def test_the_file_is_ours_byte_for_byte(folder: Path) -> None:
    assert (folder / "predict.py").read_bytes() == Path(standalone.__file__).read_bytes()


def test_examples_are_nobody_s_and_cover_the_odd_ones(folder: Path, world) -> None:
    data = json.loads((folder / "example_inputs.json").read_text())
    texts = [example["text"] for example in data["examples"]]
    own = {text for pool in world.dataset.pools.values() for text in pool.texts if text}
    assert texts == examples.texts() and not own & set(texts)
    assert "" in texts and any("😀" in text for text in texts) and any("世界" in text for text in texts)
    assert max(len(text.split()) for text in texts) > 512, "longer than any student reads"
    assert "never the study's own" in data["about"]


def test_a_near_tie_may_fall_either_way() -> None:
    written = {
        "labels": ["a", "b"],
        "tolerance": {"float32": 0.1},
        "examples": [
            {"what": "x", "text": "", "expected": {"float32": {"label": "a", "logits": [1.0, 0.9]}}}
        ],
    }
    tie = np.array([[0.95, 0.96]], np.float32)
    assert standalone.check_examples(tie, written, "float32").wrong == ()
    written["tolerance"]["float32"] = 0.01
    assert len(standalone.check_examples(tie, written, "float32").wrong) == 1
    assert len(standalone.check_examples(np.full((1, 2), np.nan, np.float32), written, "float32").wrong) == 1
