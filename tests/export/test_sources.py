"""Code that goes with an export loads it where kdsearch is not installed, and is kdsearch's own."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsearch.core.errors import UsageError, VerificationError
from kdsearch.export import folder as folders
from kdsearch.export import sources
from kdsearch.export.bundle import export_student
from kdsearch.export.loading import modeling_run, torch_run
from kdsearch.export.sources import modeling_source, student_source
from kdsearch.students import STUDENTS

TEXTS = ["free prize call now", "lunch at home later", "", "quiet room " * 30]

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Blocker())
"""
PIPELINE = """
import json
from transformers import pipeline
folder, texts = sys.argv[1], json.loads(sys.argv[2])
classify = pipeline("text-classification", model=folder, trust_remote_code=True, top_k=None)
answers = [{{found["label"]: found["score"] for found in answer}} for answer in classify(texts)]
assert not {{"kdsearch"}} & set(sys.modules)
print(json.dumps(answers))
"""
TORCH = """
import json, runpy
import torch
from tokenizers import Tokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
student = runpy.run_path(folder + "/pytorch/student.py")["load"]()
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
answers = []
for text in texts:
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        scores = student(ids, torch.ones_like(ids))[0].softmax(1)[0].tolist()
    answers.append(dict(zip(json.load(open(folder + "/pytorch/student.json"))["labels"], scores)))
print(json.dumps(answers))
"""


def answers(folder: Path, code: str, blocked: set[str], tmp_path: Path) -> list[dict[str, float]]:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            BLOCKED.format(blocked=blocked) + code.format(),
            str(folder),
            json.dumps(TEXTS),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, float]] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def expected(folder: Path, student: torch.nn.Module) -> list[list[float]]:
    from kdsearch.export.predict import open_tokenizer, pad

    tokenizer = open_tokenizer(folder / "tokenizer.json", 12)
    rows = [pad([tokenizer.encode(text).ids], 0) for text in TEXTS]
    with torch.inference_mode():
        return [student(*map(torch.from_numpy, row))[0].softmax(1)[0].tolist() for row in rows]


@pytest.mark.parametrize("name", STUDENTS)
def test_the_code_loads_what_was_written(name: str, written) -> None:
    folder, student = written(name, ("hf", "torch"), self_contained=True)
    ids = np.random.default_rng(3).integers(1, 40, (5, 9))
    mask = (np.arange(9) < np.array([9, 3, 1, 0, 5])[:, None]).astype(np.int64)
    with torch.inference_mode():
        wanted = student(torch.from_numpy(ids * mask), torch.from_numpy(mask))[0].numpy()
    for run in (torch_run(folder), modeling_run(folder)):
        assert np.array_equal(run(ids * mask, mask), wanted)
    assert not list(folder.rglob("__pycache__")), "looking adds nothing to the folder"
    assert all(path.stat().st_mode & stat.S_IRGRP for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["textcnn", "bert_small"])
def test_transformers_loads_it_without_kdsearch(name: str, written, tmp_path: Path) -> None:
    folder, student = written(name, ("hf",), self_contained=True)
    found = answers(folder, PIPELINE, {"kdsearch"}, tmp_path)
    scores = [[answer["genuine"], answer["spam"]] for answer in found]
    assert np.allclose(scores, expected(folder, student), atol=1e-4)


def test_torch_loads_it_without_transformers_and_kdsearch(written, tmp_path: Path) -> None:
    folder, student = written("bilstm", ("torch",))
    found = answers(folder, TORCH, {"kdsearch", "transformers"}, tmp_path)
    scores = [[answer["genuine"], answer["spam"]] for answer in found]
    assert np.allclose(scores, expected(folder, student), atol=1e-5)


@pytest.mark.parametrize("make", [modeling_source, student_source])
def test_the_code_is_short_complete_and_kdsearch_s_own(make, written) -> None:
    _, student = written("bilstm", ("torch",))
    tree = ast.parse(make(student))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"BiLSTM", "WordStudent", "Student", "Attention"} <= set(classes) and "TextCNN" not in classes
    own = ast.parse(Path(sys.modules[type(student).__module__].__file__).read_text())
    (forward,) = (n for n in ast.walk(classes["BiLSTM"]) if getattr(n, "name", "") == "forward")
    assert ast.dump(forward) in {ast.dump(n) for n in ast.walk(own) if isinstance(n, ast.FunctionDef)}
    members = {n.name for node in classes.values() for n in node.body if isinstance(n, ast.FunctionDef)}
    assert not members & sources.LEFT_BEHIND


def test_without_being_asked_no_code_goes_along(written) -> None:
    folder, _ = written("bag", ("hf", "onnx"))
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    assert not (folder / folders.MODELING).exists() and not (folder / "pytorch").exists()
    kdsearch_names = {path.name for path in folder.rglob("*.py")}
    assert kdsearch_names == {"predict.py"}


def test_an_export_proves_the_code(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = world.complete("textcnn")
    trial = (world.store, world.study, world.trial(number))
    made = export_student(*trial, to=tmp_path / "good", formats=("hf", "torch"), self_contained=True)
    assert made.self_contained and {"modeling_kdsearch.py", "pytorch/student.py"} <= set(made.files)
    wrong = student_source(world.student("textcnn")).replace(
        "* attention_mask_BT", "* 1.01 * attention_mask_BT"
    )
    monkeypatch.setattr(folders, "student_source", lambda student: wrong)
    with pytest.raises(VerificationError, match=r"pytorch/student\.py against torch"):
        export_student(*trial, to=tmp_path / "bad", formats=("hf", "torch"))
    with pytest.raises(UsageError, match="hf"):
        export_student(*trial, to=tmp_path / "no", formats=("onnx",), self_contained=True)
