"""An exported folder is what was measured; anything else becomes DIR.failed and exit code 7."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdsearch.core.errors import ArtifactError, ConflictError, VerificationError
from kdsearch.core.records import TrialResult
from kdsearch.export import evaluate, folder
from kdsearch.export.bundle import export_student, teacher_name
from kdsearch.export.formats import FORMATS
from kdsearch.export.manifest import Manifest, hash_files, read_manifest
from kdsearch.export.predict import Predictor
from kdsearch.export.recheck import verify_folder
from kdsearch.measure.runtimes.onnx import to_onnx
from kdsearch.store import readings
from kdsearch.students import STUDENTS

DEFAULT_FILES = {
    "README.md",
    "config.json",
    "example_inputs.json",
    "kdsearch.json",
    "model.safetensors",
    "onnx/model.onnx",
    "predict.py",
    "tokenizer.json",
    "tokenizer_config.json",
}


def export(world, number: int, to: Path, **options) -> Manifest:
    return export_student(world.store, world.study, world.trial(number), to=to, **options)


def names(path: Path) -> set[str]:
    return {found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()}


def left_behind(to: Path) -> set[str]:
    return {found.name for found in to.parent.iterdir() if found.name.startswith(to.name)}


@pytest.mark.parametrize("student", STUDENTS)
def test_every_student_is_exported_and_predicts_what_was_measured(
    student: str, world, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    manifest = export(world, world.complete(student), to)
    assert names(to) == DEFAULT_FILES and left_behind(to) == {"out"}
    assert manifest == read_manifest(to) and manifest.files == hash_files(to)
    measured = world.validation_logits(world.student(student))
    found = Predictor.open(to).logits(world.dataset.pools["validation"].texts, batch_size=7)
    assert np.abs(found - measured).max() < 1e-3
    assert manifest.verification.num_texts == manifest.verification.num_rows == 40
    assert manifest.verification.stored_diff < 1e-5 and manifest.verification.quality_diff == 0


def test_the_manifest_tells_the_whole_story(world, tmp_path: Path) -> None:
    number = world.complete("textcnn", p90_ms=0.5)
    manifest = export(world, number, tmp_path / "out")
    trial, validation = world.trial(number), manifest.metrics.validation
    assert (manifest.study, manifest.trial, manifest.student, manifest.scheme) == (
        "tiny",
        number,
        "textcnn",
        "offline",
    )
    assert manifest.params == trial.params and manifest.labels == world.prepared.labels
    assert validation.scores.quality == trial.quality and validation.num_rows == 40
    assert validation.interval[0] <= validation.scores.quality <= validation.interval[1]
    assert validation.scores.agreement is not None
    assert manifest.metrics.teacher is not None and manifest.metrics.teacher.quality == 0.95
    assert manifest.latency.speedup == pytest.approx(40.0)
    assert manifest.lineage.artifact == trial.artifact
    assert manifest.lineage.teacher_fingerprint == world.prepared.teacher_fingerprint
    assert manifest.lineage.teacher == "teacher", "a path of the launching machine is nobody's business"
    assert {"kdsearch", "torch", "onnxruntime"} <= set(manifest.versions)


def test_the_card_stands_beside_it(world, tmp_path: Path) -> None:
    export(world, world.complete(), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\n")
    assert "40.0 times faster" in text and "/somebody/private" not in text


def test_the_test_pool_is_read_once_per_trial(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = world.complete("textcnn"), world.complete("bag")
    found = export(world, first, tmp_path / "a")
    assert found.metrics.test is not None and found.metrics.test.num_rows == 30
    assert found.metrics.test_reads == 1
    loaded: list[str] = []
    load_pool = evaluate.load_pool

    def watched(blobs, prepared, name):
        loaded.append(name)
        return load_pool(blobs, prepared, name)

    monkeypatch.setattr(evaluate, "load_pool", watched)
    again = export(world, first, tmp_path / "b")
    assert again.metrics == found.metrics and "test" not in loaded
    other = export(world, second, tmp_path / "c")
    assert other.metrics.test_reads == 2 and loaded.count("test") == 1


def test_who_reads_second_gets_the_first_figures(world) -> None:
    number = world.complete()
    engine, study = world.store.engine, world.record.id
    assert readings.find(engine, study, number) is None
    assert readings.record(engine, study, number, {"a": 1}) == {"a": 1}
    assert readings.record(engine, study, number, {"a": 2}) == {"a": 1}
    assert readings.find(engine, study, number) == {"a": 1} and readings.count(engine, study) == 1


def test_a_study_without_test_pool_is_exported(world_without_test, tmp_path: Path) -> None:
    manifest = export(world_without_test, world_without_test.complete(), tmp_path / "out")
    assert manifest.metrics.test is None and manifest.metrics.test_reads == 0


# ------------------------------------------------------------ what must fail


def failing(world, number: int, to: Path, match: str) -> None:
    with pytest.raises(VerificationError, match=match) as caught:
        export(world, number, to)
    assert caught.value.exit_code == 7 and f"{to}.failed" in caught.value.hint
    assert left_behind(to) == {"out.failed"} and (to.with_name("out.failed") / "model.safetensors").is_file()
    assert readings.count(world.store.engine, world.record.id) == 0, "nothing unproven reads the test pool"


def test_another_onnx_graph_is_found(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = to_onnx(world.student("textcnn", seed=99))
    monkeypatch.setattr(folder, "to_onnx", lambda student: other)
    failing(world, world.complete("textcnn"), tmp_path / "out", "ONNX against torch")


def test_other_weights_are_found(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = folder._write_weights

    def nudged(path: Path, student) -> None:
        with torch.no_grad():
            student.classifier.bias += torch.tensor([0.01, 0.0])
        write(path, student)

    monkeypatch.setattr(folder, "_write_weights", nudged)
    failing(world, world.complete("textcnn"), tmp_path / "out", "stored validation logits")


def test_other_stored_logits_are_found(
    world, tmp_path: Path, wrong_logits: Callable[[TrialResult], TrialResult]
) -> None:
    failing(world, world.complete(change=wrong_logits), tmp_path / "out", "stored validation logits")


def test_another_recorded_quality_is_found(world, tmp_path: Path) -> None:
    def better(result: TrialResult) -> TrialResult:
        return replace(result, scores=replace(result.scores, quality=result.scores.quality + 0.001))

    failing(world, world.complete(change=better), tmp_path / "out", "is recorded")


def test_another_tokenizer_is_found(world_with_other_tokenizer, tmp_path: Path) -> None:
    world = world_with_other_tokenizer
    failing(world, world.complete(), tmp_path / "out", "other ids than the training")


def test_other_labels_are_found(world, tmp_path: Path) -> None:
    prepared = replace(world.prepared, labels=("spam", "genuine"))
    study = replace(world.study, prepared=prepared.save(world.store.blobs))
    with pytest.raises(VerificationError, match="labels"):
        export_student(world.store, study, world.trial(world.complete()), to=tmp_path / "out")


def test_a_failed_export_can_be_repeated(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, to = world.complete("textcnn"), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(folder, "to_onnx", lambda student: to_onnx(world.student("textcnn", seed=99)))
        for _ in range(2):
            failing(world, number, to, "ONNX")
    export(world, number, to)
    assert names(to) == DEFAULT_FILES


def test_a_damaged_artifact_is_never_exported(world, tmp_path: Path) -> None:
    number = world.complete("textcnn")
    listing = json.loads(world.store.blobs.open(world.trial(number).artifact).read_text())["tree"]
    path = world.store.blobs.open(listing["model.safetensors"])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        export(world, number, tmp_path / "out")
    assert left_behind(tmp_path / "out") == set()


def test_an_existing_folder_is_a_conflict(world, tmp_path: Path) -> None:
    number, to = world.complete("bag"), tmp_path / "out"
    first = export(world, number, to)
    with pytest.raises(ConflictError, match="exists already"):
        export(world, number, to)
    (to / "extra.txt").write_text("gone afterwards")
    second = export(world, world.complete("bag", seed=1), to, overwrite=True)
    assert read_manifest(to) == second != first
    assert names(to) == DEFAULT_FILES and left_behind(to) == {"out"}


def test_overwrite_spares_what_is_no_export(world, tmp_path: Path) -> None:
    to = tmp_path / "out"
    to.mkdir()
    (to / "thesis.txt").write_text("years of work")
    with pytest.raises(ConflictError, match="not an exported student"):
        export(world, world.complete("bag"), to, overwrite=True)
    assert names(to) == {"thesis.txt"}


def test_overwrite_keeps_the_old_export_when_the_new_one_fails(
    world, tmp_path: Path, wrong_logits: Callable[[TrialResult], TrialResult]
) -> None:
    to = tmp_path / "out"
    first = export(world, world.complete("textcnn"), to)
    with pytest.raises(VerificationError):
        export(world, world.complete("textcnn", seed=2, change=wrong_logits), to, overwrite=True)
    assert read_manifest(to) == first


def test_a_trial_without_student_is_a_conflict(world, tmp_path: Path) -> None:
    lease = world._running("bag", 0)
    with pytest.raises(ConflictError, match="running"):
        export(world, lease.number, tmp_path / "out")


def test_teachers_are_named_without_paths() -> None:
    assert teacher_name({"model": "owner/name"}) == "owner/name"
    assert teacher_name({"model": "/home/x/models/minilm"}) == "minilm"
    assert "2 layers" in teacher_name({"model": None, "build": {"layers": 2, "hidden": 64}})


# ------------------------------------------------------------ loaded elsewhere

PIPELINE = """
import json, sys, warnings
import kdsearch.hf
from transformers import pipeline
folder, texts = sys.argv[1], json.loads(sys.stdin.read())
classify = pipeline("text-classification", model=folder)
alone = [classify(text)[0]["label"] for text in texts]
batched = [found["label"] for found in classify(texts, batch_size=8, truncation=True)]
assert alone == batched, (alone, batched)
print(json.dumps(alone))
"""

ONNX_ALONE = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer
folder, texts = sys.argv[1], json.loads(sys.stdin.read())
labels = json.load(open(folder + "/kdsearch.json"))["labels"]
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
session = onnxruntime.InferenceSession(folder + "/onnx/model.onnx", providers=["CPUExecutionProvider"])
found = []
for text in texts:
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    logits = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    found.append(labels[int(logits[0].argmax())])
assert not {"torch", "transformers", "kdsearch"} & set(sys.modules)
print(json.dumps(found))
"""


@pytest.mark.parametrize("student", ["textcnn", "bilstm", "bert_small"])
def test_other_doors_give_the_same_labels(
    student: str, world, tmp_path: Path, labels_of: Callable[[str], list[str]]
) -> None:
    to = tmp_path / "out"
    export(world, world.complete(student), to)
    texts = [*world.dataset.pools["validation"].texts, "free prize " * 40, "unheard-of words ☃"]
    expected = [found.label for found in Predictor.open(to).predict(texts)]
    assert len(set(expected)) == 2, "a student that always says the same proves nothing"
    for code in (PIPELINE, ONNX_ALONE):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(to)],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        assert ran.returncode == 0, ran.stderr
        assert labels_of(ran.stdout) == expected


def test_the_snippets_of_the_card_run_as_they_stand(world, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export(world, world.complete("textcnn"), to, formats=tuple(FORMATS), self_contained=True)
    blocks = re.findall(r"```(python|bash)\n(.*?)```", (to / "README.md").read_text(), re.DOTALL)
    assert [kind for kind, _ in blocks] == ["bash", *["python"] * 5]
    expected = Predictor.open(to).predict(["a text"])[0].label
    (to.parent / "texts.csv").write_text("message\na text\n")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    for kind, block in blocks:
        shell = block.replace("python ", f"{sys.executable} ").replace("texts.csv", "../texts.csv")
        argv = [sys.executable, "-c", block] if kind == "python" else ["bash", "-ec", shell]
        ran = subprocess.run(argv, capture_output=True, text=True, cwd=to, env=env)
        assert ran.returncode == 0 and expected in ran.stdout, ran.stderr
        assert not {"genuine", "spam"} - {expected} & set(re.findall(r"\w+", ran.stdout))
    assert next(verify_folder(to)).name == "files", "trying it altered nothing"


def test_predictor_probabilities_and_order(world, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export(world, world.complete("textcnn"), to)
    predictor = Predictor.open(to)
    texts = list(world.dataset.pools["validation"].texts)
    found = predictor.predict(texts)
    assert all(abs(sum(one.probabilities) - 1) < 1e-9 for one in found)
    assert all(one.probability == max(one.probabilities) for one in found)
    assert [one.label for one in predictor.predict(texts[::-1])] == [one.label for one in found][::-1]
    assert predictor.predict([]) == []


def test_predictor_refuses_altered_files(world, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export(world, world.complete("bag"), to)
    path = to / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(VerificationError, match="not what was exported"):
        Predictor.open(to)


def test_weights_are_named_for_transformers(world, tmp_path: Path) -> None:
    export(world, world.complete("bag"), tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert all(name.startswith("student.") for name in weights) and "student.id_table" in weights
