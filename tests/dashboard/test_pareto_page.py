"""The Pareto page against a real Postgres: what it shows, and what it says when there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from kdsearch.store.connect import Store

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"


@pytest.fixture
def open_app(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """The app on the test's database, with what its URL says."""

    def run(url: str = store.url, **query: str) -> AppTest:
        monkeypatch.setenv("KDSEARCH_STORAGE", url)
        app = AppTest.from_file(str(APP), default_timeout=60)
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        assert not app.exception
        return app

    return run


def said(app: AppTest, kind: str) -> list[str]:
    return [element.value for element in app.get(kind)]


def table(app: AppTest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = app.dataframe[0].value.to_dict("records")
    return rows


def test_without_studies_it_says_how_to_start_one(open_app: Callable[..., AppTest]) -> None:
    (sentence,) = said(open_app(), "info")
    assert "kdsearch run studies/quickstart.yaml" in sentence


def test_without_trials_it_says_so(
    open_app: Callable[..., AppTest], seed_study: Callable[[str], Any]
) -> None:
    seed_study("fresh")
    app = open_app()
    (sentence,) = said(app, "info")
    assert "kdsearch worker start --study fresh" in sentence
    assert app.markdown[0].value == ":blue-badge[open] 0 of 10 trials (none yet) · 0 workers"


def test_the_best_student_stands_beside_the_teacher(open_app: Callable[..., AppTest], sms: Any) -> None:
    app = open_app()
    assert said(app, "subheader") == ["Best: trial 2, textcnn, offline"]
    metrics = [(m.label, m.value, m.delta) for m in app.metric]
    assert metrics == [
        ("Quality (f1:spam)", "0.9300", "teacher: 0.9600"),
        ("Latency", "0.4 ms", "50× faster"),
        ("Size", "1.50 MB", "60× smaller"),
    ]
    assert said(app, "code") == ["kdsearch export sms --trial 2 --to exported/sms"]
    assert len(app.get("plotly_chart")) == 1


def test_the_table_holds_what_the_chart_shows(open_app: Callable[..., AppTest], sms: Any) -> None:
    rows = table(open_app())
    assert [(r["trial"], r["standing"]) for r in rows] == [
        (2, "front"),
        (1, "front"),
        (0, "front"),
        (3, "dominated"),
        (4, "over limit"),
    ]
    assert (
        rows[0]["parameters"]
        == "offline.lambda=0.5, offline.loss=kl, offline.temperature=4.0, textcnn.filters=64"
    )
    assert rows[0]["p90 (ms)"] == 0.4


def test_a_budget_is_applied_before_the_front_is_drawn(open_app: Callable[..., AppTest], sms: Any) -> None:
    app = open_app()
    app.number_input[0].set_value(0.1).run()
    assert said(app, "subheader") == ["Best: trial 1, bag, offline"]
    assert {r["trial"]: r["standing"] for r in table(app)}[2] == "over limit"


def test_nothing_within_the_budget_is_said(open_app: Callable[..., AppTest], sms: Any) -> None:
    app = open_app(within="0.001")
    (sentence,) = said(app, "warning")
    assert "No student lies within the budget" in sentence
    assert {r["standing"] for r in table(app)} == {"over limit"}
    assert said(app, "code") == []


def test_the_url_chooses_the_study(
    open_app: Callable[..., AppTest], sms: Any, seed_study: Callable[[str], Any]
) -> None:
    other = seed_study("other")
    other.complete("bag", "none", quality=0.5, ms=1.0)
    assert open_app().selectbox[0].value == "other"
    app = open_app(study="sms")
    assert app.selectbox[0].value == "sms"
    assert len(table(app)) == 5
    assert open_app(study="nobody").selectbox[0].value == "other"


def test_without_a_teacher_there_is_nothing_to_compare_with(
    open_app: Callable[..., AppTest], seed_study: Callable[[str], Any]
) -> None:
    seed_study("alone").complete("bag", "none", quality=0.5, ms=1.0)
    assert [m.delta for m in open_app().metric] == ["", "", ""]


def test_a_database_that_is_away_is_a_sentence_without_the_password(open_app: Callable[..., AppTest]) -> None:
    app = open_app("postgresql://kdsearch:hush-hush@127.0.0.1:1/kdsearch")
    (sentence,) = said(app, "error")
    assert "not available" in sentence
    assert "hush" not in sentence
    assert "Traceback" not in sentence


def test_a_database_without_tables_is_a_sentence(
    open_app: Callable[..., AppTest], empty_database: str
) -> None:
    (sentence,) = said(open_app(empty_database), "error")
    assert "kdsearch db upgrade" in sentence


def test_without_a_database_it_says_how_to_start(open_app: Callable[..., AppTest]) -> None:
    (sentence,) = said(open_app(""), "error")
    assert "kdsearch dashboard" in sentence
