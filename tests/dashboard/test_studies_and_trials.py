"""The pages Studies and Trials against a real Postgres, and a study of ten thousand trials on each page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from streamlit.testing.v1 import AppTest

from dashboard.app_pages.pareto import MAX_ROWS
from kdsearch.core.records import Standing
from kdsearch.store import columns, requests, standings
from kdsearch.store.connect import Store

Open = Callable[..., AppTest]
MANY = 10_000
COPIES = """
INSERT INTO kdsearch.trial (study_id, number, optuna_trial_id, config, config_key, architecture_key,
    student, scheme, state, attempt, worker_id, measured, latency, result, scores, quality, constraints,
    told, finished_at)
SELECT study_id, n, n, config, config_key, architecture_key, student, scheme, state, attempt, worker_id,
    measured, latency, result, scores, 0.5 + 0.3 * random(), constraints, told, finished_at
FROM kdsearch.trial, generate_series(5, :last) n WHERE study_id = :study AND number = 3
"""


def said(app: AppTest, kind: str) -> list[str]:
    return [element.value for element in app.get(kind)]


def table(app: AppTest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = app.dataframe[0].value.to_dict("records")
    return rows


def on(app: AppTest, page: str) -> AppTest:
    app.switch_page(f"app_pages/{page}.py").run()
    assert not app.exception
    return app


def test_studies_are_listed_newest_first(open_app: Open, sms: Any, seed_study: Callable[[str], Any]) -> None:
    seed_study("other")
    rows = table(on(open_app(), "studies"))
    assert [row["study"] for row in rows] == ["other", "sms"]
    assert (rows[1]["trials"], rows[1]["progress"], rows[1]["workers"]) == ("5 of 10", 0.5, 0)
    assert (rows[1]["best"], rows[1]["teacher"], rows[1]["latency (ms)"]) == (0.93, 0.96, 0.4)
    assert rows[1]["best student"] == "textcnn, offline"


def test_the_best_is_the_best_mean_where_there_is_one(store: Store, sms: Any) -> None:
    assert columns.best_trials(store.engine)[sms.study_id].number == 2
    standing = Standing(number=1, quality=0.83, low=0.8, high=0.9, on_front=1.0, seeds=(1, 2))
    standings.set_standings(store.engine, sms.study_id, [standing])
    best = columns.best_trials(store.engine)[sms.study_id]
    assert (best.number, best.quality) == (1, 0.83)


def test_an_open_study_says_how_to_help_it(open_app: Open, sms: Any) -> None:
    app = on(open_app(), "studies")
    assert "kdsearch worker start --study sms" in said(app, "code")
    assert said(app, "warning") == []


def test_pausing_files_a_request(open_app: Open, sms: Any, store: Store) -> None:
    app = on(open_app(), "studies")
    app.button(key="pause").click().run()
    (filed,) = requests.requests(store.engine, sms.study_id)
    assert (filed.kind, dict(filed.arguments)) == ("pause", {})
    assert app.button(key="pause").disabled


def test_what_is_wrong_is_a_card(open_app: Open, seed_study: Callable[[str], Any]) -> None:
    study = seed_study("slow")
    for _ in range(3):
        study.complete("bilstm", "offline", quality=0.9, ms=50.0)
    (card,) = said(on(open_app(), "studies"), "warning")
    assert card.startswith("**Nothing feasible.** None of 3 trials")


def test_trials_are_a_table_with_filters(open_app: Open, sms: Any) -> None:
    app = on(open_app(), "trials")
    assert [row["trial"] for row in table(app)] == [0, 1, 2, 3, 4]
    app.get_by_key("students").set_value(["textcnn"]).run()
    assert [row["trial"] for row in table(app)] == [2, 3]
    app.toggle(key="feasible").set_value(True).run()
    app.get_by_key("students").set_value([]).run()
    assert [row["trial"] for row in table(app)] == [0, 1, 2, 3]
    assert "4 of 5 trials" in said(app, "caption")


def test_a_trial_is_linked(open_app: Open, sms: Any) -> None:
    app = on(open_app(), "trials")
    app.number_input(key="trial").set_value(3).run()
    assert [link.label for link in app.get("page_link")] == ["Open trial 3"]
    assert app.query_params["trial"] == "3"


@pytest.mark.parametrize("page", ["pareto", "trials", "studies"])
def test_ten_thousand_trials_are_shown(open_app: Open, store: Store, sms: Any, page: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(COPIES), {"study": sms.study_id, "last": MANY - 1})
    app = open_app() if page == "pareto" else on(open_app(), page)
    assert said(app, "error") == []
    if page == "pareto":
        assert len(app.dataframe[-1].value) == MAX_ROWS
        assert f"The first {MAX_ROWS} of {MANY:,}; the file holds all of them." in said(app, "caption")
    elif page == "trials":
        assert len(app.dataframe[0].value) == MANY
    else:
        assert table(app)[0]["trials"] == "10,000 of 10"
