"""Study files: numbers, placeholders, positions, the normalised form and its hash."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from kdsearch.core.errors import StudyFileError
from kdsearch.core.space import Choice, Fixed, Range
from kdsearch.core.spec import StudySpec
from kdsearch.core.specteacher import LastLayers
from kdsearch.core.studyfile import StudyFile, read_study, render, spec_from_json, spec_to_json

MINIMAL = """\
version: 1
name: s
data: {train: train.csv, validation: validation.csv}
teacher: {model: ./teacher}
"""


def read(folder: Path, text: str, **env: str) -> StudyFile:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study(path, env=env)


def with_training(value: str) -> str:
    return MINIMAL + f"training: {{learning_rate: {value}}}\n"


def messages(folder: Path, text: str, **env: str) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        read(folder, text, **env)
    return [problem.message for problem in caught.value.problems]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("written", ["1e-4", "1E-4", "0.0001", "1.0e-4", ".0001", "+1e-4"])
def test_every_way_to_write_a_small_number_is_a_number(tmp_path: Path, written: str) -> None:
    assert read(tmp_path, with_training(written)).spec.training.learning_rate == Fixed(1e-4)


@pytest.mark.parametrize(
    ("written", "dimension"),
    [
        ("3", Fixed(3)),
        ("[1e-4, 1e-3]", Choice((1e-4, 1e-3))),
        ("{min: 1e-4, max: 1e-3, log: true}", Range(1e-4, 1e-3, log=True)),
        ("{min: 64, max: 256, step: 64}", Range(64, 256, step=64, integer=True)),
        ("{min: 0, max: 1, step: 0.1}", Range(0, 1, step=0.1)),
    ],
)
def test_scalar_list_and_mapping_are_fixed_choice_and_range(
    tmp_path: Path, written: str, dimension: Fixed | Choice | Range
) -> None:
    assert read(tmp_path, with_training(written)).spec.training.learning_rate == dimension


def test_words_and_dates_stay_texts_and_a_bom_is_nothing(tmp_path: Path) -> None:
    text = MINIMAL.replace("csv}", "csv, labels: [yes, no, 2024-01-01, 'true']}")
    assert read(tmp_path, "\ufeff" + text).spec.data.labels == ("yes", "no", "2024-01-01", "true")


def test_a_label_map_has_texts_for_keys(tmp_path: Path) -> None:
    text = MINIMAL.replace("./teacher}", "./teacher, label_map: {0: ham, LABEL_1: spam}}")
    assert read(tmp_path, text).spec.teacher.label_map == {"0": "ham", "LABEL_1": "spam"}


def test_a_label_map_beside_finetune_would_do_nothing(tmp_path: Path) -> None:
    teacher = "./teacher, finetune: {force: true}, label_map: {LABEL_0: ham}}"
    with pytest.raises(StudyFileError) as caught:
        read(tmp_path, MINIMAL.replace("./teacher}", teacher))
    assert "fine-tuned" in caught.value.problems[0].message


def test_the_last_layers(tmp_path: Path) -> None:
    text = MINIMAL.replace("./teacher}", "./teacher, finetune: {layers: {last: 4}}}")
    finetune = read(tmp_path, text).spec.teacher.finetune
    assert finetune is not None
    assert finetune.layers == LastLayers(last=4)


# ---------------------------------------------------------------- placeholders


def test_placeholders_are_filled_in_in_paths_and_model_ids(tmp_path: Path) -> None:
    text = """\
version: 1
name: s
data:
  train: ${DATA}/${SET}/train.csv
  validation: {path: "${DATA}/v.csv", limit: 3}
  test: ${NOWHERE:-here}/test.csv
  unlabelled: ${EMPTY:-a/b}
teacher: {model: "${TEACHER:-org/model}"}
"""
    spec = read(tmp_path, text, DATA="/d", SET="spam", EMPTY="").spec
    assert spec.data.train.path == "/d/spam/train.csv"
    assert spec.data.validation.path == "/d/v.csv"
    assert spec.data.test is not None and spec.data.test.path == "here/test.csv"
    assert spec.data.unlabelled is not None and spec.data.unlabelled.path == "a/b"
    assert spec.teacher.model == "org/model"


def test_placeholders_are_filled_in_beside_the_study_s_teacher_too(tmp_path: Path) -> None:
    text = """\
version: 1
name: s
data: {train: a.csv, validation: b.csv}
teacher: {model: m, logits: "${D}/l.npz"}
teachers: [{model: "${D}/old"}, {model: "${NOWHERE:-org/older}", weight: 2}]
pretrained: {vectors: "${D}/v.gz", encoder: "${D}/small"}
"""
    spec = read(tmp_path, text, D="/d").spec
    assert spec.teacher.logits == "/d/l.npz"
    assert [teacher.model for teacher in spec.teachers] == ["/d/old", "org/older"]
    assert (spec.pretrained.vectors, spec.pretrained.encoder) == ("/d/v.gz", "/d/small")


@pytest.mark.parametrize("written", ["1/3", "3/3", "1/1", " 2 / 3 "])
def test_a_slice_is_a_part_of_parts(tmp_path: Path, written: str) -> None:
    text = MINIMAL.replace("./teacher", "./teacher, finetune: {}") + f'teachers: [{{slice: "{written}"}}]\n'
    (teacher,) = read(tmp_path, text).spec.teachers
    assert str(teacher.slice) == written.replace(" ", "")


@pytest.mark.parametrize("written", ["0/3", "4/3", "1/101", "1", "0.5", "-1/2", "a/b", "[1, 3]"])
def test_any_other_slice_is_a_mistake(tmp_path: Path, written: str) -> None:
    (message,) = messages(tmp_path, MINIMAL + f"teachers: [{{slice: {written}}}]\n")
    assert "slice" in message


@pytest.mark.parametrize("written", ["${}", "${DATA", "${1A}", "${A:=b}", "${A:-${B}}"])
def test_anything_else_that_looks_like_a_placeholder_is_a_mistake(tmp_path: Path, written: str) -> None:
    text = MINIMAL.replace("train.csv", f'"{written}"')
    (message,) = messages(tmp_path, text, A="a", DATA="d")
    assert "not closed" in message


@pytest.mark.parametrize("env", [{}, {"DATA": ""}])
def test_a_variable_that_is_unset_or_empty_is_a_mistake(tmp_path: Path, env: dict[str, str]) -> None:
    text = MINIMAL.replace("train.csv", "'${DATA}/a.csv'")
    assert messages(tmp_path, text, **env) == ["the environment variable DATA is not set"]


# ---------------------------------------------------------------- hash and normalised form


def test_the_environment_does_not_change_the_hash(tmp_path: Path) -> None:
    text = MINIMAL.replace("train.csv", "'${DATA}/a.csv'")
    here, there = read(tmp_path, text, DATA="/a"), read(tmp_path, text, DATA="/b")
    assert here.spec != there.spec
    assert (here.sha256, here.normalised) == (there.sha256, there.normalised)
    assert "${DATA}/a.csv" in here.normalised


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n" + MINIMAL,
        MINIMAL + "training: {epochs: 6}\n",
        MINIMAL.replace("train: train.csv", "train: {path: train.csv}"),
        "\n".join(reversed(MINIMAL.splitlines())),
    ],
)
def test_what_means_the_same_has_the_same_hash(tmp_path: Path, same: str) -> None:
    assert read(tmp_path, same).sha256 == read(tmp_path, MINIMAL).sha256


@pytest.mark.parametrize(
    ("written", "sha256"),
    [
        ("", "f7c31e1df0809cd62926b64ec065d2035f2ba0ba75e0960f7512c22060d8d639"),
        ("search: {seed: 3}", "3a12525039e5103df2b673ab6cdeb163ec6c83cda4884a28ed8ccf0d1b5d0106"),
        (
            "students: [bag, {type: textcnn, dropout: 0.1}]",
            "710f8be95b27fcf8ce9814235bfb3514b0d25d4aa6d0bfa4ee7a11945a31bc2d",
        ),
    ],
)
def test_a_study_of_the_first_version_is_still_the_same(tmp_path: Path, written: str, sha256: str) -> None:
    text = MINIMAL.replace("train: train.csv", "train: {path: train.csv, limit: 5}")
    text = text.replace("n.csv}", "n.csv, labels: [a, b]}").replace(
        "./teacher", "./teacher, finetune: {epochs: 2}"
    )
    assert read(tmp_path, text + written).sha256 == sha256


@pytest.mark.parametrize(
    "written",
    [
        "teachers: [{slice: 1/2}]",
        "pretrained: {vectors: v.txt}",
        "search: {presets: [literature]}",
        "training: {rows_per_epoch: 7}",
    ],
)
def test_a_later_key_that_is_used_makes_another_study(tmp_path: Path, written: str) -> None:
    assert read(tmp_path, MINIMAL + written).sha256 != read(tmp_path, MINIMAL).sha256


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("train.csv", "{path: train.csv, label_noise: 0.1}"),
        ("./teacher", "./teacher, joint: {epochs: 9}"),
        ("validation.csv", "validation.csv, language: zh"),
        ("validation.csv", "validation.csv, show_texts: false"),
        ("./teacher", "./teacher, finetune: {select: accuracy}"),
    ],
)
def test_a_later_key_within_a_section_counts_too(tmp_path: Path, section: str, key: str) -> None:
    text = MINIMAL.replace("./teacher", "./teacher, finetune: {}") if "finetune" in key else MINIMAL
    changed = text.replace("./teacher, finetune: {}" if "finetune" in key else section, key)
    assert read(tmp_path, changed).sha256 != read(tmp_path, text).sha256


def test_the_budget_alone_may_change(tmp_path: Path) -> None:
    plain, raised = read(tmp_path, MINIMAL), read(tmp_path, MINIMAL + "budget: {trials: 99}\n")
    assert plain.sha256 == raised.sha256
    assert plain.normalised != raised.normalised
    longer = read(tmp_path, MINIMAL + "training: {epochs: 7}\n")
    assert longer.sha256 != plain.sha256


NUMBERS = st.floats(1e-6, 1, allow_subnormal=False)
DIMENSIONS = st.one_of(
    NUMBERS,
    st.integers(1, 99),
    st.sampled_from(["kl", "mse"]),
    st.booleans(),
    st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True),
    st.just([[2, 3, 4], [3]]),
    st.tuples(NUMBERS, st.booleans()).map(lambda t: {"min": t[0] / 2, "max": t[0], "log": t[1]}),
    st.just({"min": 64, "max": 256, "step": 64}),
)
VARIANTS = st.lists(
    st.one_of(
        st.just("bag"),
        st.dictionaries(st.sampled_from("abc"), DIMENSIONS).map(lambda params: {"type": "bag", **params}),
    ),
    min_size=1,
    max_size=3,
)
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "students": VARIANTS,
        "schemes": VARIANTS,
        "constraints": st.just({"latency_ms": {"max": 2.0}}),
        "teachers": st.just([{"slice": "2/3", "weight": 0.5}, {"model": "m", "label_map": {"A": "a"}}]),
        "pretrained": st.sampled_from([{"vectors": "v.gz"}, {"encoder": "org/small"}]),
        "search": st.just({"presets": ["literature"]}),
        "data": st.just(
            {
                "train": {"path": "a", "keep_labels": ["x", "y"], "per_class": 5, "label_noise": 0.1},
                "validation": "b",
                "augmented": {"times": 2},
                "language": "zh",
            }
        ),
        "teacher": st.sampled_from(
            [
                {"model": "m", "logits": "l.npz", "label_map": {"A": "a"}},
                {"build": {}, "pretrain": {}, "finetune": {"select": "accuracy", "layers": {"last": 2}}},
                {"model": "m", "joint": {"epochs": 1}, "finetune": {"label_smoothing": 0.1}},
            ]
        ),
        "training": st.fixed_dictionaries(
            {"epochs": st.integers(1, 9)}, optional={"learning_rate": DIMENSIONS, "batch_size": DIMENSIONS}
        ),
        "objectives": st.sampled_from([{"quality": "f1:spam"}, {"quality": "recall@precision=0.95:spam"}]),
        "budget": st.just({"trials": 3, "hours": 0.5}),
    },
)


@given(SECTIONS)
def test_a_spec_survives_json(sections: dict[str, Any]) -> None:
    base = YAML(typ="safe", pure=True).load(MINIMAL)
    spec = StudySpec.model_validate({**base, **sections})
    text = json.dumps(spec_to_json(spec))
    assert spec_from_json(json.loads(text)) == spec


# ---------------------------------------------------------------- mistakes


def test_an_unreadable_file_is_one_mistake_without_a_traceback(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "absent.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(StudyFileError) as caught:
            read_study(path, env={})
        assert said in render(caught.value)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff")
    with pytest.raises(StudyFileError, match=r"binary\.yaml") as caught:
        read_study(binary, env={})
    assert "byte 7 is 0xff" in render(caught.value)


def test_the_caret_stands_under_the_mistake_whatever_is_before_it(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        read(tmp_path, MINIMAL.replace("csv}", "csv, text: 垃圾, foo: 1}"))
    _, source, caret, *_ = render(caught.value).splitlines()
    assert caret.index("^") - source.index("foo") == 2  # two characters, each two columns wide


def test_tags_build_nothing(tmp_path: Path) -> None:
    text = MINIMAL.replace("./teacher", "!!python/object/apply:os.getcwd []")
    assert messages(tmp_path, text) == [
        "the tag tag:yaml.org,2002:python/object/apply:os.getcwd is not used in study files"
    ]


BREAKAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.text("a${}", max_size=4),
    st.just([]),
    st.just({}),
    st.just([1, [2]]),
    st.just({"min": 1}),
    st.just({"unknown": 1}),
    st.just({"path": "a", "label_noise": 0.5}),
    st.just([{"slice": "1/2"}, {"slice": "2/2", "label_map": {"a": "b"}}, {"model": "m"}]),
)
PATHS = [
    ("version",), ("name",), ("data",), ("data", "train"), ("data", "train", "path"), ("data", "labels"),
    ("data", "labels", 0), ("teacher",), ("teacher", "finetune"), ("teacher", "finetune", "layers"),
    ("teacher", "build"), ("students",), ("students", 0), ("students", 0, "type"), ("students", 1, "k"),
    ("schemes",), ("training", "seed"), ("training", "batch_size"), ("constraints", "size_mb"),
    ("latency", "device"), ("objectives", "quality"), ("extra",), ("budget", "trials"),
    ("data", "train", "label_noise"), ("data", "validation"), ("data", "augmented"), ("data", "language"),
    ("data", "train", "keep_labels"), ("teacher", "logits"), ("teacher", "label_map"), ("teacher", "model"),
    ("teacher", "pretrain"), ("teacher", "joint"), ("teachers",), ("pretrained",), ("search", "presets"),
    ("data", "unlabelled"), ("teacher", "finetune", "select"), ("pretrained", "vectors"),
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PATHS), BREAKAGE), min_size=1, max_size=6))
def test_whatever_is_broken_the_answer_is_a_spec_or_placed_mistakes(
    tmp_path_factory: pytest.TempPathFactory, breakages: list[tuple[tuple[str | int, ...], Any]]
) -> None:
    data: Any = {
        "version": 1,
        "name": "s",
        "data": {"train": {"path": "a"}, "validation": "b", "labels": ["x", "y"]},
        "teacher": {"model": "m", "finetune": {"epochs": 1}},
        "students": ["bag", {"type": "textcnn", "k": [1, 2]}],
    }
    for path, value in breakages:
        owner = data
        for entry in path[:-1]:
            owner = owner.get(entry, {}) if isinstance(owner, dict) else {}
        if isinstance(owner, dict):
            owner[path[-1]] = deepcopy(value)
    path = tmp_path_factory.mktemp("fuzz") / "study.yaml"
    path.write_text(json.dumps(data, indent=1))
    try:
        file = read_study(path, env={})
    except StudyFileError as error:
        assert error.problems
        assert all(p.where and p.where.line and p.message and p.expected for p in error.problems)
        assert render(error)
    else:
        assert spec_from_json(json.loads(file.normalised)) == file.spec


@settings(deadline=None)
@given(st.text("ab:-[]{}#&*!|>'\"%@`,? \n\t$1", max_size=40))
def test_no_text_at_all_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "study.yaml"
    path.write_text(text)
    with pytest.raises(StudyFileError) as caught:
        read_study(path, env={})
    assert caught.value.problems
    assert render(caught.value)
