"""The arithmetic behind Trial, Insights and Compare holds for any trials."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import comparison, gains, parameters, progress
from dashboard.confusion import confusion, most_confused
from dashboard.disagreements import allowed, disagreements
from dashboard.parameters import Setting
from kdsearch.core.records import Standing
from kdsearch.store.columns import TrialColumns
from kdsearch.store.reads import StudyRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STUDY = StudyRow(
    id=1, name="sms", state="open", error=None, spec={}, spec_text="", spec_sha256="", data_fingerprint="",
    artifacts_url="", counts={}, budget_trials=10, budget_hours=None, budget_failed=1, active_seconds=0.0,
    prepared=None, teacher=None, quality_name="f1:spam", latency_name="p90_ms", created_at=NOW,
)  # fmt: skip
TRIALS = st.lists(
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 100), st.booleans(), st.integers(0, 50)),
    min_size=1,
    max_size=25,
)
"""(quality, latency, feasible, minute of its end)."""


def columns(drawn: list[Any], **words: list[str]) -> TrialColumns:
    """Complete trials of these figures."""
    size = len(drawn)
    floats = {
        name: np.full(size, np.nan) for name, kind in TrialColumns.__annotations__.items() if kind == "Floats"
    }
    latency = np.array([each[1] for each in drawn], float)
    given = {
        "number": np.arange(size),
        "state": np.array(["complete"] * size, object),
        "origin": np.array(["sampler"] * size, object),
        "student": np.array(words.get("student", ["bag"] * size), object),
        "scheme": np.array(words.get("scheme", ["none"] * size), object),
        "quality": np.array([each[0] for each in drawn], float),
        "p90_ms": latency,
        "noisy": np.zeros(size, bool),
        "feasible": np.array([each[2] for each in drawn], bool),
        "epochs_run": np.ones(size, int),
        "finished_at": np.array([NOW + timedelta(minutes=each[3]) for each in drawn], object),
    }
    return TrialColumns(**{**floats, **given})  # type: ignore[arg-type]


# ---------------------------------------------------------------- progress


@given(TRIALS)
def test_the_hypervolume_never_falls_and_ends_at_todays(drawn: list[Any]) -> None:
    grown = progress.of(STUDY, columns(drawn))
    areas = [step.area for step in grown.steps]
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(areas))
    assert all(step.finished <= grown.finished == len(drawn) for step in grown.steps)
    assert areas == [] or areas[-1] in (0.0, pytest.approx(1.0))
    assert (grown.reference is None) == (not any(feasible for *_, feasible, _ in drawn))


@given(TRIALS)
def test_the_front_at_the_last_moment_is_the_front(drawn: list[Any]) -> None:
    trials = columns(drawn)
    last = trials.where(progress.by_then(trials, len(drawn)))
    assert progress.front_of(last, "p90_ms") == progress.front_of(trials, "p90_ms")
    assert not progress.by_then(trials, 0).any()


@given(TRIALS, st.integers(0, 25))
def test_the_moment_counts_trials_as_they_ended(drawn: list[Any], finished: int) -> None:
    trials = columns(drawn)
    kept = progress.by_then(trials, finished)
    assert kept.sum() == min(finished, len(drawn))
    ended = [minute for *_, minute in drawn]
    inside, outside = np.array(ended)[kept], np.array(ended)[~kept]
    assert not len(inside) or not len(outside) or inside.max() <= outside.min()


@given(TRIALS)
def test_whoever_made_the_front_grow_was_on_it_then(drawn: list[Any]) -> None:
    trials = columns(drawn)
    for step in progress.of(STUDY, trials).steps:
        then = trials.where(progress.by_then(trials, step.finished))
        assert step.number in then.number[progress.front_of(then, "p90_ms")]


# ---------------------------------------------------------------- gains


def standing(number: int, quality: float, half: float) -> Standing:
    return Standing(
        number=number, quality=quality, low=quality - half, high=quality + half, on_front=0.5, seeds=(1, 2)
    )


ARMS = {"student": ["bag", "bag", "bag", "bilstm"], "scheme": ["none", "offline", "offline", "offline"]}
FOUR = [(0.8, 1.0, True, 0), (0.85, 1.0, True, 1), (0.9, 1.0, True, 2), (0.9, 1.0, True, 3)]


def test_a_gain_is_of_the_best_over_the_best_control_of_the_same_student() -> None:
    (found,) = gains.gains(columns(FOUR, **ARMS), {})
    assert (found.student, found.scheme, found.trial, found.control) == ("bag", "offline", 2, 0)
    assert found.gain == pytest.approx(0.1)
    assert (found.tried, found.tried_control, found.seeds) == (2, 1, 1)
    assert (found.low, found.high) == (None, None)


def test_a_gain_between_standings_has_an_interval_wider_than_either() -> None:
    known = {0: standing(0, 0.79, 0.02), 1: standing(1, 0.84, 0.03)}
    (found,) = gains.gains(columns(FOUR, **ARMS), known)
    assert (found.trial, found.control, found.seeds) == (1, 0, 2)
    assert found.gain == pytest.approx(0.05)
    assert found.low is not None and found.high is not None
    assert (found.low, found.high) == (pytest.approx(0.05 - 0.0360555), pytest.approx(0.05 + 0.0360555))


# ---------------------------------------------------------------- parameters


def setting(number: int, **params: Any) -> Setting:
    own = {f"offline.{name.replace('lam', 'lambda')}": value for name, value in params.items()}
    return Setting(number, "bag", "offline", 0.5 + number / 1000, 1.0, {"learning_rate": 0.1, **own})


LAMBDAS = st.lists(st.tuples(st.floats(0.0, 1.0), st.none() | st.floats(1.0, 16.0)), min_size=1, max_size=40)


@given(LAMBDAS)
def test_every_trial_lies_in_one_cell_of_the_grid(drawn: list[tuple[float, float | None]]) -> None:
    rows = [
        setting(n, lam=lam, **({} if t is None else {"temperature": t})) for n, (lam, t) in enumerate(drawn)
    ]
    found = parameters.grid(rows, "offline")
    assert found is not None
    assert found.counts.sum() == len(rows)
    assert found.counts.shape == (len(found.temperatures), len(found.lambdas))
    assert max(found.counts.shape) <= parameters.MOST_VALUES + 1
    filled = found.counts > 0
    assert np.isnan(found.mean[~filled]).all()
    assert (found.best[filled] >= found.mean[filled] - 1e-12).all()
    assert np.nansum(found.mean * found.counts) == pytest.approx(sum(row.quality for row in rows))


def test_a_scheme_without_lambda_has_no_grid() -> None:
    assert parameters.grid([Setting(0, "bag", "none", 0.5, 1.0, {})], "none") is None
    assert parameters.distilling([Setting(0, "bag", "none", 0.5, 1.0, {}), setting(1, lam=0.5)]) == [
        "offline"
    ]


@given(st.integers(0, 60), st.integers(1, 60), st.sets(st.integers(0, 59), max_size=10))
def test_thinning_keeps_what_is_to_be_kept_and_the_order(num: int, most: int, keep: set[int]) -> None:
    rows = [setting(n) for n in range(num)]
    thin = [row.number for row in parameters.thinned(rows, most, keep=keep)]
    assert thin == sorted(set(thin))
    assert len(thin) == min(num, most)
    if len(keep) <= most:
        assert {n for n in keep if n < num} <= set(thin)


def test_what_was_searched_took_more_than_one_value() -> None:
    rows = [setting(0, lam=0.1, kernel=(2, 3)), setting(1, lam=0.2, kernel=(2, 3))]
    assert parameters.searched(rows) == ["offline.lambda"]
    assert parameters.differing([row.params for row in rows]) == {"offline.lambda": [0.1, 0.2]}
    assert parameters.differing([rows[0].params, {}])["learning_rate"] == [0.1, None]


# ---------------------------------------------------------------- mistakes


MATRICES = st.integers(2, 5).flatmap(
    lambda c: st.lists(st.lists(st.integers(0, 50), min_size=c, max_size=c), min_size=c, max_size=c)
)


@given(MATRICES)
def test_rows_of_a_confusion_sum_to_the_class_counts(counts: list[list[int]]) -> None:
    labels = [f"c{i}" for i in range(len(counts))]
    found = confusion(labels, counts)
    assert found is not None
    assert found.class_counts.tolist() == [sum(row) for row in counts]
    for row, share in zip(counts, found.shares, strict=True):
        assert share.sum() == pytest.approx(1.0 if sum(row) else 0.0)
    for i, label in enumerate(labels):
        assert found.recall[label] == pytest.approx(counts[i][i] / max(1, sum(counts[i])))
    pairs = most_confused(found, 100)
    assert sum(pair.count for pair in pairs) == sum(map(sum, counts)) - sum(
        c[i] for i, c in enumerate(counts)
    )
    assert all(pair.truth != pair.predicted for pair in pairs)
    assert [pair.count for pair in pairs] == sorted((pair.count for pair in pairs), reverse=True)


def test_a_confusion_of_other_labels_is_none() -> None:
    assert confusion(["a", "b"], None) is None
    assert confusion(["a", "b", "c"], [[1, 0], [0, 1]]) is None


def test_disagreements_put_sure_mistakes_first_and_count_who_is_right() -> None:
    rows = [
        {"text": "x" * 1000, "label": "ham", "teacher": "ham"},
        {"text": "b", "label": "ham", "teacher": "ham"},
        {"text": "c", "label": "spam", "teacher": "ham"},
        {"text": "d", "label": None, "teacher": "spam"},
        {"text": "e", "label": "ham", "teacher": "ham"},
    ]
    logits_NC = np.array([[0.0, 1.0], [0.0, 5.0], [0.0, 9.0], [3.0, 0.0], [3.0, 0.0]], np.float32)
    found = disagreements(rows, logits_NC, ("ham", "spam"))
    assert [each.right for each in found.shown] == ["teacher", "unknown", "teacher", "student"]
    assert [each.text[:1] for each in found.shown] == ["b", "d", "x", "c"]
    assert max(len(each.text) for each in found.shown) <= 500
    assert (found.num_rows, found.num, found.num_student_right, found.num_teacher_right) == (5, 4, 1, 2)


@pytest.mark.parametrize(
    ("value", "may"), [("", True), ("on", True), ("off", False), ("0", False), ("No", False)]
)
def test_texts_are_shown_unless_the_setting_says_no(value: str, may: bool) -> None:
    assert allowed({"KDSEARCH_SHOW_TEXTS": value}) is may


# ---------------------------------------------------------------- comparison


@given(st.text(max_size=30), st.sets(st.integers(0, 20)))
def test_whatever_is_typed_gives_trials_that_exist_and_at_most_four(asked: str, known: set[int]) -> None:
    numbers, mistake = comparison.parse(asked, known)
    assert set(numbers) <= known
    assert len(numbers) == len(set(numbers)) <= comparison.MOST
    assert mistake is None or mistake.strip()


def test_more_than_four_are_said() -> None:
    assert comparison.parse("1 2,3;4,5,1", range(9)) == (
        [1, 2, 3, 4],
        "At most 4 trials fit side by side: the first 4 are shown.",
    )
