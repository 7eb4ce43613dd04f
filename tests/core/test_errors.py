"""The exception tree is what its docstring draws."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.core import errors
from kdsearch.core.errors import ArtifactError, KdsearchError, Problem, StudyFileError, Where, closest

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KdsearchError)
]


def test_the_docstring_draws_every_class_under_its_parent_with_its_exit_code() -> None:
    drawn: dict[str, tuple[str, str | None]] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([│├└─ ]*)(\w+Error)(?: \((?:exit )?(\d+)\))?", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            drawn[match[2]] = (parents[depth - 1] if depth else "Exception", match[3])
    assert set(drawn) == {cls.__name__ for cls in CLASSES}
    for cls in CLASSES:
        parent, code = drawn[cls.__name__]
        assert cls.__bases__[0].__name__ == parent
        assert code is None or int(code) == cls.exit_code


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_says_when_it_happens_and_has_a_name_for_machines(cls: type[KdsearchError]) -> None:
    assert cls.__doc__
    error = cls((), file="f") if issubclass(cls, StudyFileError) else cls("what", hint="next")  # type: ignore[call-arg]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert str(error) == error.what


def test_codes_are_distinct() -> None:
    assert ArtifactError("x").code == "artifact"
    codes = {cls((), file="f").code if issubclass(cls, StudyFileError) else cls("x").code for cls in CLASSES}  # type: ignore[call-arg]
    assert len(codes) == len(CLASSES)


def test_a_place_names_as_much_as_is_known() -> None:
    assert str(Where(file="a.yaml", line=3, column=5)) == "a.yaml:3:5"
    assert str(Where(file="a.yaml")) == "a.yaml"


@pytest.mark.parametrize(("count", "said"), [(1, "1 mistake "), (2, "2 mistakes ")])
def test_mistakes_are_counted(count: int, said: str) -> None:
    problems = (Problem(path=(), message="m"),) * count
    assert said in str(StudyFileError(problems, file="f"))


WORDS = ["train", "test", "validation", "text", "label", "kernel_sizes"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("tets", "test"), ("Validaton", "validation"), ("kernels", "kernel_sizes"), ("zzz", ""), ("", "")],
)
def test_a_typing_mistake_is_understood(typed: str, meant: str) -> None:
    assert closest(typed, WORDS) == meant


@given(st.text(), st.lists(st.text()))
def test_a_suggestion_is_always_one_of_the_options(word: str, options: list[str]) -> None:
    assert closest(word, options) in {"", *options}
    assert closest(word, [*options, word]).lower() == word.lower()
