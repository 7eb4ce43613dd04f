"""Trial, Insights, Compare and Workers with ten thousand trials: all there, and small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from streamlit.testing.v1 import AppTest

MANY = 10_000
MOST_BYTES = 1_000_000
COPIES = """
INSERT INTO kdsearch.trial (study_id, number, optuna_trial_id, config, config_key, architecture_key, student,
    scheme, origin, state, attempt, worker_id, measured, latency, result, scores, quality, constraints, told,
    started_at, finished_at, epochs_run)
SELECT t.study_id, n, n,
    jsonb_set(jsonb_set(t.config, '{learning_rate}', to_jsonb(0.001 + (n * 7919 % 1000) * 1e-6)),
        '{scheme_params,lambda}', to_jsonb((n * 7919 % 997) / 997.0)),
    'key' || n, t.architecture_key, t.student, t.scheme, t.origin, t.state, 1, t.worker_id, true,
    jsonb_set(t.latency, '{p90_ms}', to_jsonb(0.1 + (n * 31 % 1009) / 1009.0)), t.result,
    jsonb_set(t.scores, '{quality}', to_jsonb(q.quality)), q.quality, t.constraints, true,
    t.started_at, t.finished_at + n * interval '1 second', t.epochs_run
FROM kdsearch.trial t, generate_series(8, :last) n,
    LATERAL (SELECT 0.5 + (n * 7907 % 4999) / 11000.0 AS quality) q
WHERE t.study_id = :study AND t.number = 1 AND t.repeat = 0
"""


@pytest.fixture
def many(every_state: Any) -> Any:
    """Ten thousand trials, nearly all of them copies of a complete one with figures of their own."""
    with every_state.engine.begin() as connection:
        connection.execute(text(COPIES), {"study": every_state.study_id, "last": MANY - 1})
    return every_state


def drawn(app: AppTest) -> int:
    """Bytes of all charts of the page."""
    return sum(len(chart.proto.spec) + len(chart.proto.config) for chart in app.get("plotly_chart"))


@pytest.mark.parametrize(
    ("page", "query", "num_charts"),
    [
        ("trial", {"trial": "9999"}, 2),
        ("insights", {}, 2),
        ("insights", {"view": "Parameters"}, 2),
        ("insights", {"view": "λ and T"}, 1),
        ("insights", {"view": "Gain"}, 1),
        ("compare", {"trials": "1,9999"}, 2),
        ("workers", {}, 0),
    ],
)
def test_pages_of_ten_thousand_trials_are_small(
    open_page: Callable[..., AppTest], many: Any, page: str, query: dict[str, str], num_charts: int
) -> None:
    app = open_page(page, study="states", **query)
    assert [element.value for element in app.get("error")] == []
    assert len(app.get("plotly_chart")) == num_charts
    assert drawn(app) < MOST_BYTES
    assert not num_charts or drawn(app) > 1000
