"""`kdsearch predict` on large files: few rows in memory, each kind of file, a bar for people."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdsearch.cli import predict as door
from kdsearch.core.errors import DataError
from kdsearch.export.bundle import export_student
from kdsearch.export.predict import Predictor
from kdsearch.export.tables import Row, read_texts, writing

ROOT = Path(__file__).resolve().parents[2]
PEAK = """
import resource, runpy, sys
sys.argv = ["kdsearch", *sys.argv[1:]]
try:
    runpy.run_module("kdsearch", run_name="__main__")
finally:
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.fixture
def folder(world, tmp_path: Path) -> Path:
    number = world.complete("bag")
    to = tmp_path / "student"
    export_student(world.store, world.study, world.trial(number), to=to, formats=("onnx", "onnx-int8"))
    return to


def test_rows_are_read_no_further_than_they_are_answered(folder: Path) -> None:
    read = 0

    def endless() -> Iterator[Row]:
        nonlocal read
        while True:
            read += 1
            yield Row("free prize", {"text": "free prize"})

    answers = door._answers(Predictor.open(folder), endless())
    for _ in range(3 * door.ROWS_AT_ONCE):
        next(answers)
        assert read <= 3 * door.ROWS_AT_ONCE
    assert read == 3 * door.ROWS_AT_ONCE


def test_memory_does_not_grow_with_the_file(folder: Path, tmp_path: Path) -> None:
    peaks = []
    for rows in (1_000, 40_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "note"])
            writer.writerows(["free prize call now", f"{i:x}" + "x" * 2000] for i in range(rows))
        argv = [sys.executable, "-c", PEAK, "predict", str(folder), "--file", str(path), "--to"]
        ran = subprocess.run(
            [*argv, str(tmp_path / "out.csv")],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert ran.returncode == 0, ran.stderr
        peaks.append(int(ran.stderr.split("PEAK")[1]) / 1e3)
    size_mb = path.stat().st_size / 1e6
    assert size_mb > 75 and peaks[1] - peaks[0] < size_mb / 3, peaks
    with (tmp_path / "out.csv").open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == 40_001


def test_parquet_and_gzip(folder: Path, world, tmp_path: Path) -> None:
    texts = list(world.dataset.pools["validation"].texts)
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), tmp_path / "in.parquet")
    expected = [found.label for found in Predictor.open(folder).predict(texts)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "kdsearch", "predict", str(folder), "--file", str(tmp_path / "in.parquet")]
    for name in ("out.csv.gz", "out.jsonl.gz"):
        ran = subprocess.run([*argv, "--to", str(tmp_path / name)], capture_output=True, text=True, env=env)
        assert ran.returncode == 0 and "classifying" not in ran.stderr, ran.stderr
        with gzip.open(tmp_path / name, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file)) if ".csv" in name else [json.loads(line) for line in file]
        assert [row["prediction"] for row in rows] == expected
        assert [str(row["id"]) for row in rows] == [str(i) for i in range(len(texts))]
    asked = subprocess.run([*argv, "--runtime", "onnx-int8", "-q"], capture_output=True, text=True, env=env)
    small = [found.label for found in Predictor.open(folder, runtime="onnx-int8").predict(texts)]
    assert asked.stdout.split() == small
    unknown = subprocess.run([*argv, "--runtime", "onnx-int9"], capture_output=True, text=True, env=env)
    assert unknown.returncode == 2 and "onnx-int8" in unknown.stderr


def test_damaged_parquet_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_texts(tmp_path / "a.parquet", "text"))


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.parquet"])
def test_how_much_was_read_is_told(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "in.parquet":
        pq.write_table(pa.table({"text": ["a text"] * 9000}), path)
    else:
        with writing(path) as add:
            for i in range(9000):
                add({"text": f"a text {i}"})
    shares: list[float] = []
    assert len(list(read_texts(path, "text", on_share=shares.append))) == 9000
    assert len(shares) == 9 and shares == sorted(shares) and 0 <= shares[0] < shares[-1] <= 1


def test_people_see_a_bar(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "free prize\n" * 5000)
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "kdsearch", "predict", str(folder), "--file", str(tmp_path / "in.csv")]
    child = subprocess.Popen(
        [*argv, "--to", str(tmp_path / "out.csv")],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "90"},
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(ours)
    stdout, _ = child.communicate()
    assert child.returncode == 0 and stdout.decode() == f"{tmp_path / 'out.csv'}\n"
    assert b"classifying" in seen and b"%" in seen
