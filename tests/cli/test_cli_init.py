"""`kdsearch init` and `kdsearch schema`: a first study file, and what editors complete it with."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from ruamel.yaml import YAML

from kdsearch.core.spec import StudySpec
from kdsearch.data import recognise
from kdsearch.data.dataset import load_dataset
from kdsearch.distill.schemes import SCHEMES
from kdsearch.search.check import load
from kdsearch.search.schema import study_schema
from kdsearch.search.spaces import registered
from kdsearch.students import STUDENTS

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    {"id": str(n), "review": f"the meal number {n} was fine", "stars": "good" if n % 3 else "bad"}
    for n in range(60)
]


def read(folder: Path) -> StudySpec:
    return load(folder / "study.yaml", os.environ).spec


def as_csv(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# ---------------------------------------------------------------- init


@pytest.mark.parametrize("template", ["csv", "zh"])
def test_a_sample_is_a_valid_study_whose_texts_can_be_read(
    inside: Run, tmp_path: Path, template: str
) -> None:
    data = inside("init", "My Study", "--template", template, "--json").data("init")
    assert data["files"] == [
        f"My Study/{name}" for name in ("study.yaml", "data/train.csv", "data/validation.csv")
    ]
    assert data["next"] == "kdsearch run 'My Study/study.yaml'"
    spec = read(tmp_path / "My Study")
    assert spec.name == data["study"] == "my-study"
    assert spec.data.language == ("zh" if template == "zh" else "en")
    pools = load_dataset(
        spec.data, base=tmp_path / "My Study", teacher_labels=None, mask_token=None, seed=1
    ).pools
    assert {name: len(pool) for name, pool in pools.items()} == {"train": 1600, "validation": 500}
    assert set(pools["train"].labels_N.tolist()) == {0, 1}
    if template == "zh":
        texts = [text for pool in pools.values() for text in pool.texts]
        assert len(set(texts)) == len(texts)


def test_the_template_for_the_hub(inside: Run, tmp_path: Path) -> None:
    assert inside("init", "hub", "--template", "hf", "-q").out == "hub/study.yaml\n"
    assert read(tmp_path / "hub").data.train.path.startswith("hf://")
    assert inside("init", "other", "--template", "hf", "--data", str(as_csv(tmp_path / "a.csv"))).code == 2
    assert inside("init", "other", "--validation", str(tmp_path / "a.csv")).code == 2


def test_own_texts_are_recognised_and_a_part_is_held_out(inside: Run, tmp_path: Path) -> None:
    answer = inside("init", "--data", str(as_csv(tmp_path / "reviews.csv")), "--name", "Reviews!")
    assert answer.code == 0, answer.err
    assert "20% of the rows are held out" in answer.err
    assert "next" not in answer.out
    spec = read(tmp_path)
    assert spec.name == "reviews"
    with (tmp_path / "data/train.csv").open() as train, (tmp_path / "data/validation.csv").open() as held_out:
        rows = [[tuple(row) for row in csv.reader(file)] for file in (train, held_out)]
    assert rows[0][0] == rows[1][0] == ("text", "label")
    assert sorted(rows[0][1:] + rows[1][1:]) == sorted((r["review"], r["stars"]) for r in ROWS)
    assert 3 <= len(rows[1]) - 1 <= 25


def test_own_pools_are_named_where_they_are(inside: Run, tmp_path: Path) -> None:
    train, held_out = as_csv(tmp_path / "train.csv"), as_csv(tmp_path / "held out.csv")
    answer = inside("init", "study", "--data", str(train), "--validation", str(held_out))
    assert "texts are in column 'review', labels in 'stars'" in answer.err
    data = read(tmp_path / "study").data
    assert (data.train.path, data.validation.path) == ("../train.csv", "../held out.csv")
    assert (data.text, data.label) == ("review", "stars")
    assert load_dataset(
        data, base=tmp_path / "study", teacher_labels=None, mask_token=None, seed=1
    ).labels == ("bad", "good")


def test_nothing_is_overwritten(inside: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.csv").write_text("mine")
    answer = inside("init", "--json")
    assert "data/train.csv" in answer.error(4)["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert (tmp_path / "data/train.csv").read_text() == "mine"


def test_a_file_without_labels_is_an_error(inside: Run, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\na text\n")
    assert "it has 'text'" in inside("init", "--data", "texts.csv", "--json").error(2)["message"]
    (tmp_path / "texts.doc").write_text("text")
    assert ".doc" in inside("init", "--data", "texts.doc", "--json").error(2)["message"]
    (tmp_path / "texts.jsonl").write_text("[1]\n")
    assert "no JSON object" in inside("init", "--data", "texts.jsonl", "--json").error(2)["message"]


def test_columns_of_every_kind_of_file(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.tsv").write_text(
        "\n".join("\t".join(row) for row in ([*ROWS[0]], *(r.values() for r in ROWS)))
    )
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    for path in tmp_path.iterdir():
        assert recognise.columns(path) == ("review", "stars"), path


def test_columns_are_known_by_name_before_they_are_guessed(tmp_path: Path) -> None:
    rows = [{"note": "long " * 9, "Text": f"t{n}", "label": f"l{n}"} for n in range(5)]
    assert recognise.columns(as_csv(tmp_path / "a.csv", rows)) == ("Text", "label")


# ---------------------------------------------------------------- schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return study_schema(registered())


@pytest.fixture(scope="module")
def mistakes(schema: dict[str, Any]) -> Callable[[str], list[str]]:
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    yaml = YAML(typ="safe", pure=True)
    return lambda text: [error.json_path for error in validator.iter_errors(yaml.load(text))]


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.name)
def test_every_study_of_ours_is_valid(mistakes: Callable[[str], list[str]], study: Path) -> None:
    assert mistakes(study.read_text()) == []


@pytest.mark.parametrize("template", ["csv", "hf", "zh"])
def test_what_init_writes_is_valid(
    mistakes: Callable[[str], list[str]], inside: Run, tmp_path: Path, template: str
) -> None:
    assert inside("init", "--template", template).code == 0
    assert mistakes((tmp_path / "study.yaml").read_text()) == []


@pytest.mark.parametrize(
    ("wrong", "right", "place"),
    [
        ("textcnn", "textcn", "$.students[1]"),
        ("filters:", "filter:", "$.students[1]"),
        ("filters: [32, 64]", "filters: 0", "$.students[1]"),
        ("max: 8, log: true", "max: 8, logg: true", "$.schemes[1]"),
        ("sampler: tpe", "sampler: tpee", "$.search.sampler"),
        ("quality: macro_f1", "quality: f2", "$.objectives.quality"),
        ("trials: 12", "trials: 0", "$.budget.trials"),
        ("version: 1", "version: 2", "$.version"),
        ("batch_size: 32, seed", "batch_size: 0.5, seed", "$.training.batch_size"),
    ],
)
def test_mistakes_are_found_at_their_place(
    mistakes: Callable[[str], list[str]], wrong: str, right: str, place: str
) -> None:
    text = (ROOT / "studies/quickstart.yaml").read_text()
    assert wrong in text
    assert place in mistakes(text.replace(wrong, right))


def test_every_student_scheme_and_parameter_is_in_it_and_explained(schema: dict[str, Any]) -> None:
    for key, known in (("students", STUDENTS), ("schemes", SCHEMES)):
        bare, *entries = schema["properties"][key]["items"]["anyOf"]
        assert bare["enum"] == list(known)
        found = {entry["properties"]["type"]["const"]: entry["properties"] for entry in entries}
        assert {name: set(properties) - {"type"} for name, properties in found.items()} == {
            name: set(variant.SPACE) for name, variant in known.items()
        }
        assert all(p["description"] for ps in found.values() for name, p in ps.items() if name != "type")


def test_every_section_is_in_it(schema: dict[str, Any]) -> None:
    assert list(schema["properties"]) == list(StudySpec.model_fields)
    epochs = schema["$defs"]["BudgetSpec"]["properties"]["epochs"]
    assert epochs["description"].startswith("Epochs of all trials together")
    assert "title" not in epochs


def test_every_key_is_explained(schema: dict[str, Any]) -> None:
    keys = {(name, key): found for name, s in schema["$defs"].items() for key, found in _properties(s)}
    assert [at for at, found in keys.items() if not {"description", "$ref"} & set(found)] == []


def _properties(section: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    forms = [section, *section.get("anyOf", [])]
    return [pair for form in forms for pair in form.get("properties", {}).items()]


def test_it_is_printed_as_it_is_and_as_an_answer(inside: Run, schema: dict[str, Any]) -> None:
    assert json.loads(inside("schema").out) == schema
    assert inside("schema", "--json").data("schema") == schema
