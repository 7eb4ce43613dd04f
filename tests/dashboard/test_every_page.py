"""Every page against a real Postgres: no study, no trial, nothing feasible, a database away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.app import HELP
from kdsearch.store.connect import Store

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
PAGES = sorted(HELP)
AWAY = "postgresql://kdsearch:hush-hush@127.0.0.1:1/kdsearch"


@pytest.fixture
def open_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """A page of the app on the test's database, with what its URL says."""

    def run(page: str, url: str = store.url, **query: str) -> AppTest:
        monkeypatch.setenv("KDSEARCH_STORAGE", url)
        app = AppTest.from_file(str(APP), default_timeout=60).run()
        app.switch_page(f"app_pages/{page}.py")
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        assert not app.exception
        return app

    return run


def said(app: AppTest, kind: str) -> list[str]:
    return [element.value for element in app.get(kind)]


@pytest.mark.parametrize("page", PAGES)
def test_without_studies_the_next_command_is_named(open_page: Callable[..., AppTest], page: str) -> None:
    assert ["kdsearch run studies/quickstart.yaml" in words for words in said(open_page(page), "info")] == [
        True
    ]


@pytest.mark.parametrize("page", PAGES)
def test_a_study_without_trials_is_no_traceback(
    open_page: Callable[..., AppTest], seed_study: Callable[[str], Any], page: str
) -> None:
    seed_study("fresh")
    app = open_page(page)
    assert said(app, "error") == []
    assert [heading.value for heading in app.header] != []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_feasible_is_no_traceback(
    open_page: Callable[..., AppTest], seed_study: Callable[[str], Any], page: str
) -> None:
    seed_study("slow").complete("bilstm", "offline", quality=0.9, ms=50.0)
    assert said(open_page(page), "error") == []


@pytest.mark.parametrize("page", PAGES)
def test_a_database_away_is_a_sentence_without_the_password(
    open_page: Callable[..., AppTest], page: str
) -> None:
    (sentence,) = said(open_page(page, AWAY), "error")
    assert "not available" in sentence
    assert "hush" not in sentence
    assert "Traceback" not in sentence


@pytest.mark.parametrize("page", [page for page in PAGES if page != "studies"])
def test_the_url_chooses_the_study(
    open_page: Callable[..., AppTest], sms: Any, seed_study: Callable[[str], Any], page: str
) -> None:
    seed_study("other")
    assert open_page(page).selectbox(key="study").value == "other"
    app = open_page(page, study="sms")
    assert app.selectbox(key="study").value == "sms"
    assert app.query_params["study"] == "sms"
    assert open_page(page, study="nobody").selectbox(key="study").value == "other"


def test_the_study_stays_from_page_to_page(
    open_page: Callable[..., AppTest], sms: Any, seed_study: Callable[[str], Any]
) -> None:
    seed_study("other")
    app = open_page("trials")
    app.selectbox(key="study").set_value("sms").run()
    app.switch_page("app_pages/pareto.py").run()
    assert app.selectbox(key="study").value == "sms"
