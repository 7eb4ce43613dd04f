"""An exported student behind each of its doors, as Markdown: the same answers, and what int8 is worth.

    KDSEARCH_DATA=... KDSEARCH_HOME=... .venv/bin/python benchmarks/export_doors.py [STUDY]

Without STUDY it runs one of its own first (SMS spam, a small teacher, two trials a student; some minutes).
The best TextCNN, BiLSTM, bag and small BERT are exported in every format, each one reading of the test pool.
The texts are the 1,000 of sms_spam/test.jsonl; their labels are not looked at. The doors:
transformers.pipeline; predict.py in a new virtual environment with numpy, tokenizers and onnxruntime alone;
`kdsearch predict`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.export.bundle import export_student
from kdsearch.export.formats import FORMATS
from kdsearch.export.manifest import Manifest, Quantised
from kdsearch.export.predict import Predictor
from kdsearch.store import reads
from kdsearch.store.connect import open_store
from kdsearch.store.reads import TrialRow
from kdsearch.store.statefolder import resolve_home

FloatArray = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[1]
NAME = "export-doors"
ALONE = ("numpy", "tokenizers", "onnxruntime")
STUDENTS = ("textcnn", "bilstm", "bag", "bert_small")
STUDY = """version: 1
name: export-doors
data:
  train: ${KDSEARCH_DATA}/sms_spam/train.jsonl
  validation: ${KDSEARCH_DATA}/sms_spam/validation.jsonl
  test: ${KDSEARCH_DATA}/sms_spam/test.jsonl
  labels: [ham, spam]
teacher:
  build: {layers: 2, hidden: 128, heads: 2, vocab_size: 4000}
  max_length: 64
  finetune: {epochs: 5, learning_rate: 5e-4, batch_size: 32}
students:
  - {type: bag, embed_dim: 128, hidden: 128}
  - {type: textcnn, filters: 128, kernel_sizes: [[2, 3, 4]], embed_dim: 128}
  - {type: bilstm, hidden: 128, embed_dim: 128}
  - {type: bert_small, layers: 2, hidden: 128}
schemes:
  - {type: offline, loss: kl, temperature: {min: 1, max: 8, log: true}, lambda: {min: 0.3, max: 0.9}}
training: {epochs: 6, learning_rate: {min: 5e-4, max: 3e-3, log: true}, batch_size: 32, seed: 17}
objectives: {quality: "f1:spam", latency: p90_ms}
latency: {device: cpu, runtime: onnx, threads: 1, batch_size: 1, warmup: 20, min_queries: 200, min_seconds: 1}
budget: {trials: 8, hours: 1}
search: {sampler: tpe, seed: 17}
"""
PIPELINE = """
import json, sys
import kdsearch.hf
from transformers import pipeline
classify = pipeline("text-classification", model=sys.argv[1], top_k=None, function_to_apply="none")
texts = json.loads(sys.stdin.read())
found = classify(texts, batch_size=32, truncation=True)
print(json.dumps([{each["label"]: each["score"] for each in answer} for answer in found]))
"""
STANDALONE = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from predict import Student
found = Student.open().predict(json.loads(sys.stdin.read()))
for name in ("torch", "transformers", "kdsearch"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " is there")
labels = Student.open().labels
print(json.dumps([dict(zip(labels, each.logits)) for each in found]))
"""


@dataclass(frozen=True)
class Door:
    """One way in: logits (N, C) of the texts."""

    name: str
    logits: FloatArray


def main() -> None:
    """Run the study if need be, export, ask at every door, print."""
    asked = sys.argv[1] if len(sys.argv) > 1 else NAME
    texts = [json.loads(line)["text"] for line in _texts_path().read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory(prefix="kdsearch-doors-") as work:
        if len(sys.argv) == 1:
            _run_study(Path(work))
        python = _environment(Path(work) / "alone")
        exports = _exports(asked, Path(work))
        doors = {name: list(_doors(folder, python, texts)) for name, (folder, _) in exports.items()}
        write("## The same answers behind every door\n", *_doors_table(doors, len(texts)))
        padded = {name: _padding(folder, texts) for name, (folder, _) in exports.items()}
        write("\n## Padding\n", *_padding_table(padded))
        write("\n## int8\n", *_int8_table({name: manifest for name, (_, manifest) in exports.items()}))
        folder, manifest = exports["textcnn"]
        write(f"\nVerifying the TextCNN's folder: {_verify_seconds(folder):.1f} s.", _where(manifest))


def write(*lines: str) -> None:
    """Markdown on standard output."""
    print("\n".join(lines), flush=True)


def _texts_path() -> Path:
    return Path(os.environ["KDSEARCH_DATA"]) / "sms_spam" / "test.jsonl"


def _run_study(work: Path) -> None:
    path = work / "study.yaml"
    path.write_text(STUDY)
    subprocess.run([sys.executable, "-m", "kdsearch", "run", str(path)], check=True, stdout=sys.stderr)


def _environment(folder: Path) -> Path:
    """Python of a virtual environment with nothing but what predict.py needs."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    versions = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    wanted = [line for line in versions if line.partition("==")[0] in ALONE]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True, stdout=sys.stderr)
    return python


def _exports(study: str, work: Path) -> dict[str, tuple[Path, Manifest]]:
    with open_store(
        os.environ.get("KDSEARCH_STORAGE"),
        os.environ.get("KDSEARCH_ARTIFACTS"),
        home=resolve_home(os.environ),
    ) as store:
        row = reads.study(store.engine, study)
        complete = [trial for trial in reads.trials(store.engine, row.id) if trial.state == "complete"]
        found = {}
        for name in [each for each in STUDENTS if each in {trial.student for trial in complete}]:
            trial = max((each for each in complete if each.student == name), key=_quality)
            made = export_student(store, row, trial, to=work / name, formats=tuple(FORMATS))
            found[name] = (work / name, made)
    return found


def _quality(trial: TrialRow) -> float:
    return -1.0 if trial.quality is None else trial.quality


def _doors(folder: Path, python: Path, texts: list[str]) -> Iterator[Door]:
    given = json.dumps(texts)
    ways: dict[str, Callable[[], str]] = {
        "transformers.pipeline": lambda: _said([sys.executable, "-c", PIPELINE, folder], given),
        "predict.py, alone": lambda: _said([python, "-c", STANDALONE, folder], given),
        "kdsearch predict": lambda: _kdsearch(folder, texts),
    }
    for name, ask in ways.items():
        labels = json.loads((folder / "kdsearch.json").read_text())["labels"]
        answers = json.loads(ask().splitlines()[-1])
        yield Door(name, np.array([[answer[label] for label in labels] for answer in answers]))


def _said(argv: Sequence[str | Path], stdin: str) -> str:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT) if argv[0] == sys.executable else ""}
    done = subprocess.run(
        [*map(str, argv)], input=stdin, capture_output=True, text=True, env=env, cwd="/", check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _kdsearch(folder: Path, texts: list[str]) -> str:
    path = folder.parent / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    argv = [sys.executable, "-m", "kdsearch", "predict", folder, "--file", path, "--json"]
    found = json.loads(_said(argv, ""))["data"]["predictions"]
    return json.dumps([each["logits"] for each in found])


def _doors_table(doors: dict[str, list[Door]], num_texts: int) -> Iterator[str]:
    yield "| student | door | same label as transformers | largest difference of a logit |"
    yield "|---|---|---|---|"
    for name, (first, *others) in doors.items():
        for door in others:
            same = int((first.logits.argmax(1) == door.logits.argmax(1)).sum())
            largest = np.abs(first.logits - door.logits).max()
            yield f"| {name} | {door.name} | {same} of {num_texts} | {largest:.1e} |"
            if same != num_texts or not largest <= 1e-3:
                raise SystemExit(f"{name}: {door.name} answers otherwise")


@dataclass(frozen=True)
class Padding:
    """Rows alone against the same rows in batches of 32, in the order of the file."""

    largest: float
    changed: int


def _padding(folder: Path, texts: list[str]) -> dict[str, Padding]:
    found = {}
    for runtime in ("onnx", "onnx-int8"):
        predictor = Predictor.open(folder, runtime=runtime)
        alone = predictor.logits(texts, batch_size=1)
        parts = [texts[i : i + 32] for i in range(0, len(texts), 32)]
        among = np.concatenate([predictor.logits(part, batch_size=len(part)) for part in parts])
        changed = int((alone.argmax(1) != among.argmax(1)).sum())
        found[runtime] = Padding(float(np.abs(alone - among).max()), changed)
    return found


def _padding_table(found: dict[str, dict[str, Padding]]) -> Iterator[str]:
    yield "| student | float32: logits move by up to | labels changed | int8: by up to | labels changed |"
    yield "|---|---|---|---|---|"
    for name, by in found.items():
        cells = " | ".join(f"{each.largest:.1e} | {each.changed}" for each in by.values())
        yield f"| {name} | {cells} |"


def _int8_table(manifests: dict[str, Manifest]) -> Iterator[str]:
    yield (
        "| student | MB float32 | MB int8 | p50 ms float32 | p50 ms int8 | int8 / float32 "
        "| f1:spam float32 | f1:spam int8 | difference, points | same label |"
    )
    yield "|" + "---|" * 10
    for name, manifest in manifests.items():
        if manifest.quantised is not None:
            yield _int8_row(name, manifest, manifest.quantised)


def _int8_row(name: str, manifest: Manifest, found: Quantised) -> str:
    value, low, high = (100 * share for share in found.difference)
    qualities = (manifest.metrics.validation, found.validation)
    shown = " | ".join(
        f"{100 * each.scores.quality:.1f} ({100 * each.interval[0]:.1f} to {100 * each.interval[1]:.1f})"
        for each in qualities
    )
    return (
        f"| {name} | {found.float_latency.size_mb:.2f} | {found.latency.size_mb:.2f} "
        f"| {found.float_latency.p50_ms:.3f} | {found.latency.p50_ms:.3f} | {found.ratio:.2f} "
        f"| {shown} | {value:+.1f} ({low:+.1f} to {high:+.1f}) | {100 * found.same_label:.1f} % |"
    )


def _verify_seconds(folder: Path) -> float:
    began = time.perf_counter()
    _said([sys.executable, "-m", "kdsearch", "verify", folder], "")
    return time.perf_counter() - began


def _where(manifest: Manifest) -> str:
    assert manifest.quantised is not None
    profile = manifest.quantised.latency.profile
    versions = ", ".join(
        f"{name} {manifest.versions[name]}" for name in ("onnxruntime", "torch", "transformers")
    )
    return f"Latency on {profile.device_model}, {profile.threads} thread, batch 1; {versions}."


if __name__ == "__main__":
    main()
