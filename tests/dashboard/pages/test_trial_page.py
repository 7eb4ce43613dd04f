"""The Trial page tells everything on record of a trial, whatever became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.app_pages.parts.variation import as_lines, from_lines
from kdsearch.store import reads, requests
from kdsearch.store.connect import Store

STATES = ("complete", "complete", "stopped", "rejected", "failed", "paused", "running", "waiting")


def said(app: AppTest, kind: str) -> list[str]:
    return [element.value for element in app.get(kind)]


@pytest.mark.parametrize("number", range(len(STATES)))
def test_a_trial_of_every_state_has_a_page(
    open_page: Callable[..., AppTest], every_state: Any, number: int
) -> None:
    app = open_page("trial", study="states", trial=str(number))
    assert said(app, "error") == []
    assert any(words.startswith(f"Trial {number}:") for words in said(app, "subheader"))
    assert any(words.startswith(STATES[number]) for words in said(app, "caption"))


def test_why_it_ended_is_said(open_page: Callable[..., AppTest], every_state: Any) -> None:
    def warned(number: int) -> str:
        (words,) = said(open_page("trial", study="states", trial=str(number)), "warning")
        return words.replace("\\", "")

    assert warned(5) == (
        "Paused after epoch 1 by the rule 'front': up to 0.8200 is forecast; "
        "at its latency it needs more than 0.9000"
    )
    assert "the study ended while it was paused. Before that: up to 0.8200 is forecast" in warned(2)
    assert warned(3) == "Rejected by the rule 'latency': it takes 9 ms"
    assert warned(4) == "Failed: nan"


def test_a_traceback_is_code_and_nothing_else(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("trial", study="states", trial="4")
    assert any("<b>loss</b> is *nan*" in words for words in said(app, "code"))
    others = [words for kind in ("markdown", "warning", "caption") for words in said(app, kind)]
    assert not any("<b>" in words for words in others)


def test_a_complete_trial_has_its_commands_and_artifacts(
    open_page: Callable[..., AppTest], every_state: Any
) -> None:
    app = open_page("trial", study="states", trial="1")
    assert said(app, "code")[:2] == [
        "kdsearch export states --trial 1 --to exported/states-1",
        "kdsearch trial show states 1",
    ]
    assert any("SHA-256" in table.value.columns for table in app.dataframe)
    assert "kdsearch trial rerun states 1 --seeds 1,2,3" in said(app, "code")
    assert len(app.get("plotly_chart")) == 4


def test_repeats_and_how_sure_it_is_are_told(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("trial", study="states", trial="1")
    assert "Trained again" in said(app, "subheader")
    assert any(
        "0.8300 to 0.8800 over 2 trainings" in words.replace("\\", "") for words in said(app, "caption")
    )


def test_what_was_not_recorded_is_said(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("trial", study="states", trial="1", texts="true")
    words = " ".join(said(app, "info") + said(app, "caption"))
    assert "was not recorded: the trial is older than that" in words
    assert "The texts were not stored" in words
    assert "three percentiles were recorded" in words


def test_texts_are_off_by_a_setting(
    open_page: Callable[..., AppTest], every_state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDSEARCH_SHOW_TEXTS", "off")
    app = open_page("trial", study="states", trial="1", texts="true")
    assert any("Texts are not shown by this dashboard" in words for words in said(app, "caption"))
    assert len(app.toggle) == 0


def test_an_unknown_trial_is_a_sentence(open_page: Callable[..., AppTest], every_state: Any) -> None:
    app = open_page("trial", study="states", trial="99")
    assert said(app, "warning") == ["The study has no trial 99; its last one is 7."]
    assert len(app.get("page_link")) == 1


def test_without_trials_the_next_command_is_named(
    open_page: Callable[..., AppTest], tell: Callable[[str], Any]
) -> None:
    tell("fresh")
    (words,) = said(open_page("trial", study="fresh", trial="0"), "info")
    assert "kdsearch worker start --study fresh" in words


def test_a_variation_is_asked_for_once_and_read_as_it_was_written(
    open_page: Callable[..., AppTest], every_state: Any, store: Store
) -> None:
    app = open_page("trial", study="states", trial="1")
    params = from_lines(app.text_area("variation-1").value)
    assert params["student"] == reads.trial(store.engine, reads.study(store.engine, "states").id, 1).student
    app.text_area("variation-1").set_value("student: bag\nbag.hidden: 32\nbag.sizes: [2, 3]").run()
    for _ in range(2):
        app.button("enqueue-1").click().run()
    assert not app.exception
    (row,) = requests.requests(store.engine, reads.study(store.engine, "states").id)
    assert (row.kind, row.arguments) == (
        "enqueue",
        {"params": {"student": "bag", "bag.hidden": 32, "bag.sizes": [2, 3]}},
    )
    assert any("waits for a worker" in words for words in said(app, "info"))


@pytest.mark.parametrize("text", ["", "student", "bag.hidden:"])
def test_a_variation_that_says_nothing_is_refused_in_a_sentence(
    open_page: Callable[..., AppTest], every_state: Any, store: Store, text: str
) -> None:
    app = open_page("trial", study="states", trial="1")
    app.text_area("variation-1").set_value(text).run()
    app.button("enqueue-1").click().run()
    assert any("For example" in words for words in said(app, "error"))
    assert requests.requests(store.engine, reads.study(store.engine, "states").id) == []


def test_what_is_written_for_a_person_reads_back() -> None:
    params = {"student": "textcnn", "textcnn.kernel_sizes": [2, 3], "learning_rate": 1e-4, "b": True}
    assert from_lines(as_lines(params)) == params
