"""What the file alone foretells of a study: mistakes that need no look at its texts or its teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.core.errors import StudyFileError
from kdsearch.core.studyfile import StudyFile, render
from kdsearch.search.check import check_facts, load
from kdsearch.search.foreseen import foreseen

STUDY = """\
version: 1
name: spam
data: {{train: train.jsonl, validation: validation.jsonl{data}}}
teacher: {teacher}
{rest}
"""
BUILT = "{build: {layers: 2, hidden: 32}, finetune: {epochs: 1, layers: LAYERS}}"


def study(
    folder: Path, rest: str, *, data: str = "", teacher: str = "{model: ./m, finetune: {}}"
) -> StudyFile:
    path = folder / "study.yaml"
    path.write_text(STUDY.format(data=data, teacher=teacher, rest=rest), encoding="utf-8")
    return load(path, {})


@pytest.mark.parametrize(
    ("rest", "word"),
    [
        ("students: [{type: bag, embedding: vectors}]", "pretrained.vectors"),
        ("students: [{type: bert_small, init: checkpoint}]", "pretrained.encoder"),
        ("schemes: [{type: offline, pools: train+unlabelled}]", "data.unlabelled"),
        ("schemes: [multi_teacher]", "historical teachers"),
        ("schemes: [hint]\ntraining: {epochs: 1}", "two stages"),
        ("schemes: [{type: hint, hint_epochs: 6}]", "hint_epochs"),
    ],
)
def test_what_the_file_does_not_name_is_not_there(tmp_path: Path, rest: str, word: str) -> None:
    file = study(tmp_path, rest)
    with pytest.raises(StudyFileError) as caught:
        check_facts(file, foreseen(file.spec))
    assert word in render(caught.value)


def test_the_depth_of_a_built_teacher_is_known(tmp_path: Path) -> None:
    rest = "students: [{type: bert_small, init: teacher, every: 3}]\nschemes: [{type: hint, layer: 3}]"
    file = study(tmp_path, rest, teacher=BUILT.replace("LAYERS", "{last: 3}"))
    with pytest.raises(StudyFileError) as caught:
        check_facts(file, foreseen(file.spec))
    assert len(caught.value.problems) == 3


def test_nothing_is_a_mistake_that_only_a_look_can_tell(tmp_path: Path) -> None:
    rest = (
        "teachers: [{model: ./other}]\npretrained: {vectors: v.vec.gz, encoder: ./encoder}\n"
        "students: [{type: bag, embedding: vectors}, {type: bert_small, init: teacher, every: 9}]\n"
        "schemes: [{type: hint, layer: 11}, {type: offline, pools: train+unlabelled}, multi_teacher, route]"
    )
    file = study(tmp_path, rest, data=", unlabelled: more.jsonl")
    check_facts(file, foreseen(file.spec))
