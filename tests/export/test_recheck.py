"""`kdsearch verify` finds any altered byte, and repeats what was compared at export, anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsearch.core.errors import DataError, NotFoundError, VerificationError
from kdsearch.export.bundle import export_student
from kdsearch.export.manifest import hash_files, read_manifest, write_manifest
from kdsearch.export.recheck import evaluate_file, verify_folder

FORMATS = ("hf", "onnx", "onnx-int8", "torch")


@pytest.fixture
def exported(world, tmp_path: Path) -> Path:
    number = world.complete("textcnn")
    to = tmp_path / "student"
    export_student(world.store, world.study, world.trial(number), to=to, formats=FORMATS, self_contained=True)
    return to


def kdsearch(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "KDSEARCH_HOME": str(cwd / "nowhere")}
    env.pop("KDSEARCH_STORAGE", None)
    return subprocess.run(
        [sys.executable, "-m", "kdsearch", *map(str, argv)], env=env, capture_output=True, text=True, cwd=cwd
    )


def test_any_byte_is_missed(exported: Path) -> None:
    names = [path for path in exported.rglob("*") if path.is_file()]
    assert len(names) == 14
    for path in names:
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(VerificationError, match=path.name.replace(".", r"\.")):
                next(verify_folder(exported))
        path.write_bytes(whole + b"\n")
        with pytest.raises(VerificationError, match=path.name.replace(".", r"\.")):
            next(verify_folder(exported))
        path.write_bytes(whole)
    assert next(verify_folder(exported)).name == "files"


def test_missing_and_added_files_are_named(exported: Path) -> None:
    (exported / "tokenizer.json").rename(exported / "tokenizer.bak")
    with pytest.raises(VerificationError, match=r"missing: tokenizer\.json; added: tokenizer\.bak"):
        next(verify_folder(exported))
    (exported / "tokenizer.bak").rename(exported / "tokenizer.json")
    (exported / "__pycache__").mkdir()
    (exported / "__pycache__" / "predict.pyc").write_bytes(b"code")
    with pytest.raises(VerificationError, match="added: __pycache__") as caught:
        next(verify_folder(exported))
    assert "imported" in caught.value.hint


def test_what_git_and_the_hub_keep_is_not_looked_at(exported: Path) -> None:
    for name in (".gitattributes", ".git/HEAD", ".cache/huggingface/download/x.metadata"):
        (exported / name).parent.mkdir(parents=True, exist_ok=True)
        (exported / name).write_text("theirs")
    assert next(verify_folder(exported)).name == "files"


def test_verify_in_a_fresh_process_without_a_database(exported: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(exported, elsewhere / "student")
    ran = kdsearch("verify", "student", "--json", cwd=elsewhere)
    assert ran.returncode == 0, ran.stderr
    names = [check["name"] for check in json.loads(ran.stdout)["data"]["checks"]]
    assert names == ["files", "onnx", "onnx padding", "onnx-int8", "onnx-int8 padding", "hf", "torch"]
    assert not (elsewhere / "nowhere").exists() and hash_files(elsewhere / "student") == hash_files(exported)
    (elsewhere / "student" / "onnx" / "model.onnx").write_bytes(b"other")
    ran = kdsearch("verify", "student", cwd=elsewhere)
    assert ran.returncode == 7 and "onnx/model.onnx" in ran.stderr and "Traceback" not in ran.stderr
    assert kdsearch("verify", "nobody", cwd=elsewhere).returncode == 3


def rewritten(folder: Path, change: Callable[[Path], None]) -> None:
    """Somebody alters the folder and puts the new hashes into the manifest."""
    change(folder)
    manifest = read_manifest(folder)
    write_manifest(folder, type(manifest)(**{**vars(manifest), "files": hash_files(folder)}))


def test_other_answers_are_found_even_under_right_hashes(exported: Path, world, tmp_path: Path) -> None:
    other = tmp_path / "other"
    number = world.complete("textcnn", seed=5)
    export_student(world.store, world.study, world.trial(number), to=other, formats=FORMATS)
    swaps = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_int8.onnx", "hf": "model.safetensors"}
    for name, file in swaps.items():
        folder = tmp_path / name
        shutil.copytree(exported, folder)
        rewritten(folder, lambda to, file=file: shutil.copy(other / file, to / file))
        with pytest.raises(VerificationError, match=rf"^{name} does not answer"):
            list(verify_folder(folder))


def test_a_labelled_file_is_scored(exported: Path, world, tmp_path: Path) -> None:
    pool = world.dataset.pools["validation"]
    path = tmp_path / "labelled.jsonl"
    rows = zip(pool.texts, pool.labels_N, strict=True)
    path.write_text("".join(json.dumps({"t": t, "y": world.dataset.labels[y]}) + "\n" for t, y in rows))
    manifest = read_manifest(exported)
    found = evaluate_file(exported, path, text="t", label="y")
    assert list(found) == ["onnx", "onnx-int8"]
    assert found["onnx"].scores.quality == manifest.metrics.validation.scores.quality
    assert found["onnx-int8"].scores.quality == manifest.quantised.validation.scores.quality
    ran = kdsearch("verify", exported, "--data", path, "--text", "t", "--label", "y", cwd=tmp_path)
    assert ran.returncode == 0 and "validation, as exported" in ran.stdout, ran.stderr
    path.write_text('{"t": "a", "y": "neither"}\n')
    with pytest.raises(DataError, match="'neither' in row 1"):
        evaluate_file(exported, path, text="t", label="y")


def test_an_earlier_export_still_verifies_and_predicts(exported: Path, tmp_path: Path) -> None:
    data = json.loads((exported / "kdsearch.json").read_text())
    for key in ("sha256", "formats", "self_contained", "quantised"):
        del data[key]
    del data["lineage"]["teacher_hub_id"]
    for name in ("example_inputs.json", "predict.py", "modeling_kdsearch.py"):
        (exported / name).unlink()
    shutil.rmtree(exported / "pytorch")
    (exported / "onnx/model_int8.onnx").unlink()
    data |= {"format": 1, "files": hash_files(exported)}
    (exported / "kdsearch.json").write_text(json.dumps(data))
    assert [check.name for check in verify_folder(exported)] == ["files"]
    assert read_manifest(exported).formats == ("hf", "onnx")
    with pytest.raises(NotFoundError):
        next(verify_folder(tmp_path / "no"))
