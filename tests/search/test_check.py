"""What `load` accepts: the design's file, the smallest useful file, the studies of this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.core.errors import StudyFileError
from kdsearch.core.space import Fixed
from kdsearch.core.studyfile import read_study
from kdsearch.search.check import check, load
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import Spaces, registered

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
ENV = {"KDSEARCH_DATA": "/data"}

SMALLEST = """\
version: 1
name: my-students
data:
  train: train.csv
  validation: validation.csv
teacher:
  model: ./teacher
constraints:
  latency_ms: {max: 2.0}
"""

WHOLE = """\
version: 1
name: sms-spam
data:
  train: ${KDSEARCH_DATA}/sms_spam/train.jsonl
  validation: ${KDSEARCH_DATA}/sms_spam/validation.jsonl
  test: ${KDSEARCH_DATA}/sms_spam/test.jsonl
  unlabelled: {path: "unlabelled/*.jsonl", limit: 200000}
  text: text
  label: label
  labels: [ham, spam]
teacher:
  model: ${KDSEARCH_TEACHER:-sentence-transformers/all-MiniLM-L6-v2}
  max_length: 64
  finetune: {epochs: 2, learning_rate: 5e-5, batch_size: 32, layers: {last: 4}}
constraints:
  latency_ms: {max: 2.0}
students:
  - type: textcnn
    filters: [64, 128, 256]
    kernel_sizes: [[2, 3, 4], [3, 4, 5]]
    dropout: {min: 0.0, max: 0.5}
  - type: bilstm
    hidden: {min: 64, max: 256, step: 64}
schemes:
  - type: none
  - type: offline
    loss: kl
    temperature: {min: 1, max: 16, log: true}
    lambda: {min: 0.1, max: 1.0}
training: {epochs: 6, learning_rate: {min: 1e-4, max: 5e-3, log: true}, batch_size: [32, 64], seed: 17}
objectives: {quality: "f1:spam", latency: p90_ms}
latency: {device: cpu, runtime: onnx, threads: 1, batch_size: 1, warmup: 20, min_queries: 200, min_seconds: 1}
budget: {trials: 40, hours: 2, failed: 10}
search: {sampler: tpe, seed: 17}
"""


@pytest.mark.parametrize("text", [SMALLEST, WHOLE], ids=["smallest", "whole"])
@pytest.mark.parametrize("real", [True, False])
def test_good_files_are_good(text: str, real: bool, spaces: Spaces, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    file = load(path, ENV, spaces=registered() if real else spaces)
    check(file, spaces=registered() if real else spaces)
    assert file == read_study(path, env=ENV)


def test_the_smallest_file_searches_all_students_and_has_about_ten_lines(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(SMALLEST)
    plan = Plan(load(path, ENV).spec)
    assert set(plan.students) == set(registered().students)
    assert list(plan.schemes) == ["none", "offline"]
    assert len(SMALLEST.splitlines()) <= 10


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_the_studies_of_this_repository_are_valid_and_say_what_they_ask(path: Path) -> None:
    load(path, ENV)
    header = path.read_text().split("version:")[0]
    assert all(f"# {word}:" in header for word in ("Question", "Data", "Time"))


def test_mistakes_of_every_kind_come_in_one_list(spaces: Spaces, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        SMALLEST.replace("train.csv", "${NOWHERE}/train.csv")
        + "students: [{type: textcnn, filter: 3}, {type: bilstm, hidden: {min: 5}}]\n"
        + "budget: {trials: 0}\nname: twice\n"
    )
    with pytest.raises(StudyFileError) as caught:
        load(path, {}, spaces=spaces)
    places = [(p.where.line, p.where.column) for p in caught.value.problems if p.where]
    assert places == sorted(places)
    assert [line for line, _ in places] == [4, 10, 10, 11, 12]


def test_a_parameter_with_a_mistake_does_not_hide_the_next_one(spaces: Spaces, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(SMALLEST + "students: [{type: textcnn, filters: [], dropout: 7}]\n")
    with pytest.raises(StudyFileError) as caught:
        load(path, {}, spaces=spaces)
    assert [p.path[-1] for p in caught.value.problems] == ["filters", "dropout"]


def test_check_alone_raises_what_load_raises(spaces: Spaces, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(SMALLEST + "students: [textcn]\n")
    with pytest.raises(StudyFileError) as by_load:
        load(path, {}, spaces=spaces)
    with pytest.raises(StudyFileError) as by_check:
        check(read_study(path, env={}), spaces=spaces)
    assert by_load.value.problems == by_check.value.problems


def test_a_condition_that_may_hold_is_fine(spaces: Spaces, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(SMALLEST + "schemes: [{type: offline, loss: [kl, mse], temperature: 4}]\n")
    scheme = (load(path, {}, spaces=spaces).spec.schemes or ())[0]
    assert scheme.params["temperature"] == Fixed(4)
