"""The Insights and Compare pages: what they show of a study, and what they say where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

VIEWS = ("Progress", "Parameters", "λ and T", "Gain")


def said(app: AppTest, kind: str) -> list[str]:
    return [element.value.replace("\\", "") for element in app.get(kind)]


def charts(app: AppTest) -> int:
    return len(app.get("plotly_chart"))


# ---------------------------------------------------------------- Insights


@pytest.mark.parametrize(("view", "num_charts"), [*zip(VIEWS, (2, 2, 1, 1), strict=True)])
def test_each_view_draws_its_charts(
    open_page: Callable[..., AppTest], every_state: Any, view: str, num_charts: int
) -> None:
    app = open_page("insights", study="states", view=view)
    assert said(app, "error") == []
    assert charts(app) == num_charts


def test_without_a_complete_trial_the_next_command_is_named(
    open_page: Callable[..., AppTest], tell: Callable[[str], Any]
) -> None:
    tell("fresh")
    (words,) = said(open_page("insights", study="fresh"), "info")
    assert "kdsearch worker start --study fresh" in words


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_feasible_is_no_traceback(
    open_page: Callable[..., AppTest], tell: Callable[[str], Any], view: str
) -> None:
    teller = tell("slow")
    teller.complete("bag", "none", [0.7], 9.0)
    teller.complete("bag", "offline", [0.8], 9.0)
    app = open_page("insights", study="slow", view=view)
    assert said(app, "error") == []
    if view == "Progress":
        assert "No student can be deployed yet: nothing feasible is complete." in said(app, "caption")


def test_the_front_at_an_earlier_time_is_in_the_url(
    open_page: Callable[..., AppTest], every_state: Any
) -> None:
    app = open_page("insights", study="states", until="2")
    assert app.slider[0].value == 2
    assert any("The front after 2 finished trials of 5." in words for words in said(app, "caption"))


def test_importance_says_how_to_have_it(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("insights", study="states", view="Parameters")
    assert any("kdsearch worker start --study states" in words for words in said(app, "info"))


def test_filters_are_in_the_url(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("insights", study="states", view="Parameters", students="bag", schemes="offline")
    assert [box.value for box in app.multiselect] == [["bag"], ["offline"]]
    assert "These trials do not differ in any parameter." in said(app, "info")


def test_a_gain_has_its_interval_and_the_command_for_a_paired_one(
    open_page: Callable[..., AppTest], every_state: Any
) -> None:
    app = open_page("insights", study="states", view="Gain")
    (row,) = app.dataframe[0].value.to_dict("records")
    assert (row["student"], row["scheme"], row["trial"], row["control"]) == ("bag", "offline", 1, 0)
    assert row["low"] < row["gain"] < row["high"]
    assert "kdsearch study report states" in said(app, "code")


# ---------------------------------------------------------------- Compare


def test_two_trials_side_by_side(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("compare", study="states", trials="0,1")
    figures, params = (table.value for table in app.dataframe)
    assert list(figures.columns) == ["figure", "trial 0", "trial 1"]
    assert set(params["parameter"]) == {
        "scheme",
        "offline.loss",
        "offline.temperature",
        "offline.lambda",
        "learning_rate",
    }
    assert charts(app) == 2
    assert any("was not recorded" in words for words in said(app, "info"))


def test_trials_of_every_state_can_be_compared(open_page: Callable[..., AppTest], every_state: Any) -> None:
    for trials in ("2,3,4", "5,6,7", "3,4"):
        assert said(open_page("compare", study="states", trials=trials), "error") == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("1,99", "The study has no trial 99."),
        ("1", "One trial is nothing to compare: name another one."),
        ("1,<b>", "'<b>' is no trial's number. Write numbers with commas: 3, 7"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(
    open_page: Callable[..., AppTest], every_state: Any, asked: str, words: str
) -> None:
    app = open_page("compare", study="states", trials=asked)
    assert said(app, "warning") == [words]
    assert charts(app) == 0


def test_without_trials_compare_names_the_next_command(
    open_page: Callable[..., AppTest], tell: Callable[[str], Any]
) -> None:
    tell("fresh")
    (words,) = said(open_page("compare", study="fresh"), "info")
    assert "kdsearch worker start --study fresh" in words


def test_the_front_is_one_press_away(open_page: Callable[..., AppTest], tell: Callable[[str], Any]) -> None:
    teller = tell("two")
    teller.complete("bag", "none", [0.7], 0.1)
    teller.complete("textcnn", "none", [0.8], 0.4)
    app = open_page("compare", study="two")
    app.button[0].click().run()
    assert app.text_input[0].value == "0,1"
    assert app.query_params["trials"] == "0,1"
    assert charts(app) == 2
