"""Dimensions give what they allow; parameters accept what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.core.space import Choice, Fixed, Param, Range, Scalar, encode, suggest_all


@dataclass
class LastOption:
    """A trial that takes the last option and the upper end, and remembers what it was asked."""

    asked: dict[str, Any] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> object:
        self.asked[name] = choices
        return choices[-1]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        self.asked[name] = (low, high, step, log)
        return high

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.asked[name] = (low, high, step, log)
        return high


SCALARS = st.one_of(
    st.integers(-9, 9),
    st.text("abc", min_size=1),
    st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple),
)


@given(st.lists(SCALARS, min_size=2, max_size=6, unique_by=encode))
def test_a_choice_gives_back_what_was_written_not_what_optuna_keeps(options: list[Scalar]) -> None:
    trial = LastOption()
    assert Choice(tuple(options)).suggest(trial, "x") == options[-1]
    assert trial.asked["x"] == tuple(map(encode, options))
    assert not any(isinstance(code, tuple) for code in trial.asked["x"])


def test_one_option_and_a_fixed_value_are_not_asked() -> None:
    trial = LastOption()
    assert Choice(((2, 3),)).suggest(trial, "x") == (2, 3)
    assert Fixed("kl").suggest(trial, "x") == "kl"
    assert trial.asked == {}


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_an_integer_range_gives_integers_on_its_grid(low: int, steps: int, step: int, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    high = low + steps * step
    value = Range(low, high, step=step, integer=True).suggest(study.ask(), "x")
    assert type(value) is int
    assert value in range(low, high + 1, step)


def test_a_parameter_exists_only_where_its_condition_holds() -> None:
    space = {
        "loss": Param(kind="str", default=Choice(("kl", "mse")), allowed=("kl", "mse")),
        "temperature": Param(kind="float", default=Range(1, 16, log=True), when=("loss", "kl")),
    }
    trial = LastOption()
    assert suggest_all(space, {}, trial, "offline") == {"loss": "mse"}
    assert list(trial.asked) == ["offline.loss"]
    narrowed = {"loss": Fixed("kl"), "temperature": Range(1, 8, integer=True)}
    values = suggest_all(space, narrowed, trial, "offline")
    assert values == {"loss": "kl", "temperature": 8.0}
    assert trial.asked["offline.temperature"] == (1.0, 8.0, None, False)


def test_a_condition_may_name_several_values_and_hang_on_another_one() -> None:
    space = {
        "embedding": Param(kind="str", default=Fixed("vectors"), allowed=("random", "teacher", "vectors")),
        "vocabulary": Param(
            kind="str",
            default=Choice(("teacher", "words")),
            allowed=("teacher", "words"),
            when=("embedding", ("random", "vectors")),
        ),
        "lower": Param(kind="bool", default=Choice((False, True)), when=("vocabulary", "words")),
    }
    assert space["vocabulary"].conditions == ("random", "vectors")
    assert space["lower"].conditions == ("words",)
    assert space["embedding"].conditions == ()
    everything = {"embedding": "vectors", "vocabulary": "words", "lower": True}
    assert suggest_all(space, {}, LastOption(), "bag") == everything
    random = {**everything, "embedding": "random"}
    assert suggest_all(space, {"embedding": Fixed("random")}, LastOption(), "bag") == random
    trial = LastOption()
    assert suggest_all(space, {"embedding": Fixed("teacher")}, trial, "bag") == {"embedding": "teacher"}
    assert trial.asked == {}


@pytest.mark.parametrize("dimension", [Fixed(3), Choice((1, 2.5)), Range(1, 4, integer=True)])
def test_a_number_parameter_takes_whole_numbers_as_reals(dimension: Fixed | Choice | Range) -> None:
    values = Param(kind="float", default=dimension).narrow(dimension).values()
    assert all(type(value) is float for value in values)
    assert values == dimension.values()
    assert Param(kind="int", default=dimension).narrow(dimension) == dimension


LEGAL: list[tuple[Param, list[Scalar], list[Scalar]]] = [
    (Param(kind="int", default=Fixed(1), low=1, high=4), [1, 4], [0, 5, 2.0, "2", True, (2,)]),
    (
        Param(kind="float", default=Fixed(1), low=0, high=1),
        [0, 0.5, 1],
        [-0.1, 1.1, "1", False, math.inf, (1,)],
    ),
    (Param(kind="float", default=Fixed(1), low=0, high=1, open_low=True), [1e-9], [0, 0.0]),
    (Param(kind="float", default=Fixed(1)), [-1e300], [math.nan, math.inf]),
    (Param(kind="str", default=Fixed("a"), allowed=("a", "b")), ["a"], ["c", 1, True]),
    (Param(kind="bool", default=Fixed(True)), [True, False], [1, "true"]),
    (Param(kind="ints", default=Fixed((2,)), low=1, high=9), [(2, 3), (9,)], [(), (0,), (10,), 3, "2-3"]),
]


@pytest.mark.parametrize(("param", "legal", "illegal"), LEGAL)
def test_a_parameter_accepts_what_it_says(param: Param, legal: list[Scalar], illegal: list[Scalar]) -> None:
    assert [value for value in legal if not param.accepts(value)] == []
    assert [value for value in illegal if param.accepts(value)] == []
    assert param.expected()
