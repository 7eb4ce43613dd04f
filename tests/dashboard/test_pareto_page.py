"""The Pareto page against a real Postgres: what it shows, what it is asked, what it says when empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlit.testing.v1 import AppTest

from kdsearch.store import requests
from kdsearch.store.connect import Store

Open = Callable[..., AppTest]


def said(app: AppTest, kind: str) -> list[str]:
    return [element.value for element in app.get(kind)]


def table(app: AppTest) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = app.dataframe[-1].value.to_dict("records")
    return rows


def test_without_trials_it_says_so(open_app: Open, seed_study: Callable[[str], Any]) -> None:
    seed_study("fresh")
    app = open_app()
    (sentence,) = said(app, "info")
    assert "kdsearch worker start --study fresh" in sentence
    assert app.markdown[0].value == ":blue-badge[open] 0 of 10 trials (none yet) · 0 workers"


def test_the_best_student_stands_beside_the_teacher(open_app: Open, sms: Any) -> None:
    app = open_app()
    assert said(app, "subheader") == ["Best: trial 2, textcnn, offline"]
    metrics = [(m.label, m.value, m.delta) for m in app.metric]
    assert metrics == [
        ("Quality (f1\\:spam)", "0.9300", "−3.0 points against the teacher"),
        ("Latency, p50", "0.32 ms", "50× faster"),
        ("Latency, p90", "0.4 ms", "50× faster"),
        ("Size", "1.5 MB", "60× smaller"),
    ]
    assert said(app, "code") == ["kdsearch export sms --trial 2 --to exported/sms-2"]
    assert len(app.get("plotly_chart")) == 1


def test_the_table_holds_what_the_chart_shows(open_app: Open, sms: Any) -> None:
    rows = table(open_app())
    assert [(r["trial"], r["standing"]) for r in rows] == [
        (2, "on the front"),
        (1, "on the front"),
        (0, "on the front"),
        (3, "dominated"),
        (4, "over a limit"),
    ]
    assert rows[0]["p90 (ms)"] == 0.4


def test_a_budget_is_applied_before_the_front_is_drawn(open_app: Open, sms: Any) -> None:
    app = open_app()
    app.number_input(key="within").set_value(0.1).run()
    assert said(app, "subheader") == ["Best within the budget: trial 1, bag, offline"]
    assert {r["trial"]: r["standing"] for r in table(app)}[2] == "over a limit"
    assert 0.09 <= app.get_by_key("slider").value <= 0.11


def test_nothing_within_the_budget_is_said(open_app: Open, sms: Any) -> None:
    app = open_app(within="0.001")
    (sentence,) = said(app, "warning")
    assert "No student lies within the budget" in sentence
    assert {r["standing"] for r in table(app)} == {"over a limit"}
    assert said(app, "code") == []


def test_the_url_is_the_view(open_app: Open, sms: Any) -> None:
    app = open_app(study="sms", x="size", y="accuracy", student="bag", trial="0", within="0.5")
    assert {r["trial"] for r in table(app)} == {0, 1}
    assert said(app, "subheader") == ["Picked: trial 0, bag, none"]
    assert app.selectbox(key="x").value == "size_mb"
    assert app.selectbox(key="y").value == "accuracy"


def test_filters_that_leave_nothing_say_so(open_app: Open, sms: Any) -> None:
    assert "No trial is left by the filters." in said(open_app(state="running"), "info")


def test_a_filter_that_fits_another_study_alone_is_forgotten(
    open_app: Open, sms: Any, seed_study: Callable[[str], Any]
) -> None:
    seed_study("other").complete("bag", "none", quality=0.5, ms=1.0)
    app = open_app(study="sms", student="bilstm")
    assert {r["trial"] for r in table(app)} == {4}
    app.selectbox(key="study").set_value("other").run()
    assert not app.exception
    assert {r["trial"] for r in table(app)} == {0}


def test_without_a_teacher_there_is_nothing_to_compare_with(
    open_app: Open, seed_study: Callable[[str], Any]
) -> None:
    seed_study("alone").complete("bag", "none", quality=0.5, ms=1.0)
    assert [m.delta for m in open_app().metric] == ["", "", "", ""]


def test_a_trial_that_is_not_there_is_no_traceback(open_app: Open, sms: Any) -> None:
    assert said(open_app(trial="99"), "subheader") == ["Best: trial 2, textcnn, offline"]
    assert said(open_app(trial="x"), "subheader") == ["Best: trial 2, textcnn, offline"]


def test_the_export_button_files_one_request_and_shows_it(open_app: Open, sms: Any, store: Store) -> None:
    app = open_app()
    app.button(key="export-2").click().run()
    (filed,) = requests.requests(store.engine, sms.study_id)
    assert (filed.kind, dict(filed.arguments), filed.state) == ("export", {"trial": 2}, "waiting")
    assert "waits for a worker" in said(app, "info")[0]
    assert any("kdsearch worker start --study sms" in words for words in said(app, "caption"))
    lease = requests.take(store.engine, sms.study_id, "w", 60.0)
    assert lease is not None
    sha256 = store.blobs.put(b"a zip file")
    requests.finish(store.engine, lease, {"artifact": sha256, "bytes": 10, "name": "sms-2.zip"})
    app.run()
    assert said(app, "success") == [f"Request {filed.id} is done."]
    (download,) = [b for b in app.get("download_button") if "sms" in b.label]
    assert download.label == r"Download sms\-2.zip (1e-05 MB)"


def test_an_artifact_that_is_damaged_is_not_offered(open_app: Open, sms: Any, store: Store) -> None:
    requests.file(store.engine, "sms", "export", {"trial": 2})
    lease = requests.take(store.engine, sms.study_id, "w", 60.0)
    assert lease is not None
    sha256 = store.blobs.put(b"a zip file")
    path = store.blobs.open(sha256)
    path.chmod(0o644)
    path.write_bytes(b"another one")
    requests.finish(store.engine, lease, {"artifact": sha256, "bytes": 10, "name": "sms-2.zip"})
    app = open_app()
    assert "damaged" in said(app, "warning")[0]
    assert not [b for b in app.get("download_button") if "sms" in b.label]


def test_a_request_that_failed_says_why(open_app: Open, sms: Any, store: Store) -> None:
    requests.file(store.engine, "sms", "export", {"trial": 2})
    lease = requests.take(store.engine, sms.study_id, "w", 60.0)
    assert lease is not None
    requests.fail(store.engine, lease, "the student <b>differs</b>")
    (sentence,) = said(open_app(), "error")
    assert r"\<b\>differs" in sentence


def test_a_database_without_tables_is_a_sentence(open_app: Open, empty_database: str) -> None:
    (sentence,) = said(open_app(empty_database), "error")
    assert "kdsearch db upgrade" in sentence


def test_without_a_database_it_says_how_to_start(open_app: Open) -> None:
    (sentence,) = said(open_app(""), "error")
    assert "kdsearch dashboard" in sentence
