"""`kdsearch study diff`: two studies, or a study and a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdsearch.cli.difference import differences
from kdsearch.store.connect import Store

Run = Callable[..., Any]
FILE = """\
version: 1
name: opinions
data: {train: train.csv, validation: validation.csv}
teacher: {model: teacher}
constraints: {latency_ms: {max: 10.0}}
objectives: {quality: "f1:spam"}
budget: {trials: 8}
"""


def write(folder: Path, text: str) -> str:
    (folder / "study.yaml").write_text(text)
    return "study.yaml"


def test_a_file_that_says_the_same(inside: Run, filled: str, tmp_path: Path) -> None:
    answer = inside("study", "diff", "opinions", write(tmp_path, FILE), storage=filled)
    assert (answer.code, answer.out) == (0, "")
    assert "opinions and study.yaml say the same" in answer.err


def test_a_larger_budget_can_be_resumed(inside: Run, filled: str, tmp_path: Path) -> None:
    file = write(tmp_path, FILE.replace("trials: 8", "trials: 9"))
    data = inside("study", "diff", "opinions", file, "--json", storage=filled).data("study_diff")
    assert data["changes"] == [{"key": "budget.trials", "a": 8, "b": 9}]
    assert (data["same"], data["resumable"]) == (False, True)
    assert "resumes" in inside("study", "diff", "opinions", file, storage=filled).err


def test_students_are_compared_by_type(inside: Run, filled: str, tmp_path: Path) -> None:
    students = "students: [bag, {type: textcnn, filters: [64, 128]}]\n"
    file = write(tmp_path, FILE + students)
    answer = inside("study", "diff", file, "opinions", "-q", storage=filled)
    assert answer.out.split() == ["students.bag", "students.textcnn", "students.textcnn.filters"]
    shown = inside("study", "diff", file, "opinions", storage=filled).out
    assert "[64, 128]" in shown


def test_two_studies(inside: Run, store: Store, filled: str, fresh: str) -> None:
    data = inside("study", "diff", "opinions", fresh, "--json", storage=filled).data("study_diff")
    assert [change["key"] for change in data["changes"]] == ["name"]
    assert data["resumable"] is False


def test_what_is_neither(inside: Run, filled: str, tmp_path: Path) -> None:
    assert inside("study", "diff", "opinions", "nobody", "--json", storage=filled).error(3)
    file = write(tmp_path, FILE.replace("trials", "trails"))
    assert (
        inside("study", "diff", "opinions", file, "--json", storage=filled).error(2)["code"] == "study_file"
    )


def test_ranges_and_lists_are_compared_whole() -> None:
    a = {"x": {"min": 1, "max": 2}, "y": [1, 2], "z": {"w": 1}}
    b = {"x": {"min": 1, "max": 3}, "y": [1, 2], "z": {}}
    assert [(c.key, c.a, c.b) for c in differences(a, b)] == [
        ("x", {"min": 1, "max": 2}, {"min": 1, "max": 3}),
        ("z.w", 1, None),
        ("z", None, {}),
    ]
