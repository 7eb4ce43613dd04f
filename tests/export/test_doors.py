"""`kdsearch export` and `kdsearch predict` as a person calls them: in a process of their own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsearch.core.records import TrialResult
from kdsearch.export.bundle import export_student
from kdsearch.export.manifest import read_manifest
from kdsearch.export.predict import Predictor

Ran = subprocess.CompletedProcess[str]
SPEAK = "import sys; from kdsearch.cli.main import main; sys.argv[0] = 'kdsearch'; "
HEAVY = ("torch", "transformers", "optuna", "sqlalchemy", "onnx", "pandas", "sklearn")


def kdsearch(*argv: str | Path, env: dict[str, str] | None = None, stdin: str | None = None) -> Ran:
    return subprocess.run(
        [sys.executable, "-m", "kdsearch", *map(str, argv)],
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def env(world) -> dict[str, str]:
    """Where the child process finds the study."""
    store = world.store
    return {
        "KDSEARCH_STORAGE": store.url,
        "KDSEARCH_ARTIFACTS": store.artifacts_url,
        "KDSEARCH_HOME": str(store.home),
    }


@pytest.fixture
def folder(world, tmp_path: Path) -> Path:
    """An exported TextCNN."""
    number = world.complete("textcnn")
    export_student(world.store, world.study, world.trial(number), to=tmp_path / "student")
    return tmp_path / "student"


# ------------------------------------------------------------ export


def test_export_takes_the_best_and_prints_the_folder(world, env: dict[str, str], tmp_path: Path) -> None:
    best = max((world.complete(name) for name in ("bag", "textcnn")), key=lambda n: world.trial(n).quality)
    to = tmp_path / "out"
    ran = kdsearch("export", "tiny", "--to", to, env=env)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{to}\n"
    assert read_manifest(to).trial == best
    assert "faster than the teacher" in ran.stderr
    again = kdsearch("export", "tiny", "--to", to, env=env)
    assert again.returncode == 4 and "--overwrite" in again.stderr
    assert kdsearch("export", "tiny", "--to", to, "--overwrite", "-q", env=env).stdout == f"{to}\n"


def test_export_by_number_and_within_a_budget(world, env: dict[str, str], tmp_path: Path) -> None:
    slow, fast = world.complete("textcnn", p90_ms=9.0), world.complete("bag", p90_ms=0.1)
    ran = kdsearch("export", "tiny", "--to", tmp_path / "a", "--within", "latency_ms=1", "--json", env=env)
    answer = json.loads(ran.stdout)
    assert answer["schema"] == "kdsearch.export/v1"
    assert answer["data"]["trial"] == fast and answer["data"]["dir"] == str(tmp_path / "a")
    assert answer["data"]["manifest"] == json.loads((tmp_path / "a" / "kdsearch.json").read_text())
    ran = kdsearch("export", "tiny", "--to", tmp_path / "b", "--trial", str(slow), env=env)
    assert ran.returncode == 0 and read_manifest(tmp_path / "b").trial == slow


def test_what_cannot_be_exported_has_its_exit_code(
    world, env: dict[str, str], tmp_path: Path, wrong_logits: Callable[[TrialResult], TrialResult]
) -> None:
    to = tmp_path / "out"
    assert kdsearch("export", "nobody", "--to", to, env=env).returncode == 3
    nothing = kdsearch("export", "tiny", "--to", to, env=env)
    assert nothing.returncode == 6 and "no complete trial" in nothing.stderr
    number = world.complete("textcnn", change=wrong_logits)
    assert kdsearch("export", "tiny", "--to", to, "--within", "latency_ms=0.01", env=env).returncode == 6
    assert kdsearch("export", "tiny", "--to", to, "--trial", "77", env=env).returncode == 3
    both = kdsearch("export", "tiny", "--to", to, "--trial", "0", "--within", "latency_ms=1", env=env)
    assert both.returncode == 2
    wrong = kdsearch("export", "tiny", "--to", to, "--trial", str(number), "--json", env=env)
    assert wrong.returncode == 7 and json.loads(wrong.stdout)["error"]["code"] == "verification"
    assert not to.exists() and (tmp_path / "out.failed").is_dir()
    assert "Traceback" not in wrong.stderr + both.stderr + nothing.stderr


# ------------------------------------------------------------ predict


def test_predict_texts_and_stdin(folder: Path) -> None:
    texts = ["free prize call", "lunch at home", "tab\there\nand [red]there[/]"]
    expected = Predictor.open(folder).predict(texts)
    ran = kdsearch("predict", folder, *texts)
    assert ran.returncode == 0, ran.stderr
    cells = [line.split("\t") for line in ran.stdout.splitlines()]
    assert [cell[0] for cell in cells] == [found.label for found in expected]
    assert [float(cell[1]) for cell in cells] == pytest.approx([f.probability for f in expected], abs=1e-4)
    assert cells[2][2] == "tab here and [red]there[/]"
    piped = kdsearch("predict", folder, "-q", stdin="free prize call\n\nlunch at home\n")
    assert piped.stdout.splitlines()[::2] == [found.label for found in expected[:2]]


def test_predict_takes_utf8_alone(folder: Path) -> None:
    command = [sys.executable, "-m", "kdsearch", "predict", str(folder)]
    latin = subprocess.run(command, input="café".encode("latin-1"), capture_output=True)
    assert latin.returncode == 2
    assert b"not UTF-8" in latin.stderr and b"iconv" in latin.stderr
    # a locale that is not UTF-8 changes nothing about files and pipes
    told = subprocess.run(
        command, input="café".encode(), capture_output=True, env={**os.environ, "LC_ALL": "C"}
    )
    assert told.returncode == 0
    assert told.stdout.decode().endswith("\tcafé\n")


def test_half_a_character_is_no_reason_to_fail(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "cut.jsonl"
    source.write_text('{"text": "free \\ud83d", "id": "\\ud83d"}\n')
    ran = kdsearch("predict", folder, "--file", source, "--to", tmp_path / "out.jsonl")
    assert ran.returncode == 0, ran.stderr
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["text"] == "free \ufffd"


def test_predict_json(folder: Path) -> None:
    ran = kdsearch("predict", folder, "free prize call", "--json")
    answer = json.loads(ran.stdout)
    assert answer["schema"] == "kdsearch.predict/v1" and answer["data"]["labels"] == ["genuine", "spam"]
    (found,) = answer["data"]["predictions"]
    assert found["text"] == "free prize call" and set(found["probabilities"]) == {"genuine", "spam"}
    assert (
        found["probability"] == found["probabilities"][found["label"]] == max(found["probabilities"].values())
    )


def test_predict_a_file_keeps_its_columns(folder: Path, world, tmp_path: Path) -> None:
    texts = world.dataset.pools["validation"].texts
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "message"])
        writer.writerows(enumerate(texts))
    expected = [found.label for found in Predictor.open(folder).predict(texts)]
    options = ("--file", tmp_path / "in.csv", "--text", "message")
    ran = kdsearch("predict", folder, *options, "--to", tmp_path / "out.csv")
    assert ran.returncode == 0 and ran.stdout == f"{tmp_path / 'out.csv'}\n", ran.stderr
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "message", "prediction", "probability"]
    assert [row["prediction"] for row in rows] == expected
    assert [row["message"] for row in rows] == list(texts)
    assert kdsearch("predict", folder, *options).stdout == (tmp_path / "out.csv").read_text()
    as_json = kdsearch("predict", folder, *options, "--to", tmp_path / "out.jsonl", "--json")
    assert json.loads(as_json.stdout)["data"] == {"to": str(tmp_path / "out.jsonl"), "rows": len(texts)}


def test_predict_loads_neither_torch_nor_a_database(folder: Path, tmp_path: Path) -> None:
    code = (
        f"{SPEAK}\ntry:\n    main()\nfinally:\n"
        f"    print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    argv = [sys.executable, "-c", code, "predict", str(folder), "free prize"]
    ran = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0 and ran.stderr.splitlines()[-1] == "[]", ran.stderr


def test_predict_mistakes_have_messages(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("message\nhello\n")
    missing = kdsearch("predict", folder, "--file", tmp_path / "in.csv", "--to", tmp_path / "out.csv")
    assert missing.returncode == 2 and "--text" in missing.stderr and not (tmp_path / "out.csv").exists()
    assert kdsearch("predict", tmp_path, "text").returncode == 3
    assert kdsearch("predict", folder, "text", "--file", tmp_path / "in.csv").returncode == 2
    assert kdsearch("predict", folder, "--file", tmp_path / "no.csv").returncode == 3
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    assert kdsearch("predict", folder, "text").returncode == 7
