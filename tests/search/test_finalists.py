"""Finalists: the front and the controls, thinned out where there are too many."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kdsearch.core.pareto import front
from kdsearch.core.records import TrialConfig, Tried
from kdsearch.core.spec import FinalistsSpec
from kdsearch.search.finalists import choose


def tried(number: int, quality: float | None, latency_ms: float | None, **config: Any) -> Tried:
    full = {
        "student": "textcnn",
        "student_params": {},
        "scheme": "offline",
        "scheme_params": {},
        "learning_rate": 1e-3,
        "batch_size": 32,
        "epochs": 2,
        "seed": 17,
    }
    state = config.pop("state", "complete")
    made = TrialConfig(**{**full, **config})
    return Tried(
        number=number, config=made, state=state, latency_ms=latency_ms, qualities={}, quality=quality
    )


TRIALS = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.integers(1, 20),
        st.sampled_from(["bag", "textcnn"]),
        st.sampled_from(["none", "offline"]),
        st.sampled_from(["complete", "complete", "complete", "rejected", "stopped", "failed", "running"]),
    ),
    max_size=30,
).map(
    lambda rows: [
        tried(n, q / 20, lat / 4, student=student, scheme=scheme, state=state)
        for n, (q, lat, student, scheme, state) in enumerate(rows)
    ]
)


@given(TRIALS, st.integers(1, 6))
def test_the_front_up_to_the_limit_and_the_best_control_of_each_student(
    trials: list[Tried], limit: int
) -> None:
    chosen = choose(trials, FinalistsSpec(max=limit))
    assert len(set(chosen)) == len(chosen)
    complete = [t for t in trials if t.state == "complete"]
    points = [(t.quality or 0.0, t.latency_ms or 0.0) for t in complete]
    members = [complete[i].number for i in front(points)]
    controls = [t for t in complete if t.config.scheme == "none"]
    best = {s: max(t.quality or 0.0 for t in controls if t.config.student == s) for s in _students(controls)}
    own = [n for n in chosen if n in members]
    assert min(limit, len(members)) <= len(own)
    for student, quality in best.items():
        assert any(
            trials[n].quality == quality and trials[n].config.student == student
            for n in chosen
            if trials[n].config.scheme == "none"
        )
    thinned = chosen[: min(limit, len(members))]
    assert set(thinned) <= set(members)
    assert len(chosen) - len(thinned) <= len(best)
    if limit > 1 and members:
        assert thinned[0] == members[0] and thinned[-1] == members[-1], "the ends stay"


def _students(trials: list[Tried]) -> set[str]:
    return {trial.config.student for trial in trials}


def test_who_adds_least_goes_first() -> None:
    """The third is hardly better than the second, which is hardly slower than the first."""
    points = [(0.5, 1.0), (0.7, 2.0), (0.701, 4.0), (0.9, 8.0), (0.91, 16.0)]
    trials = [tried(n, q, lat) for n, (q, lat) in enumerate(points)]
    assert choose(trials, FinalistsSpec(max=5)) == [0, 1, 2, 3, 4]
    assert choose(trials, FinalistsSpec(max=4)) == [0, 1, 3, 4]
    assert choose(trials, FinalistsSpec(max=2)) == [0, 4]
    assert choose(trials, FinalistsSpec(max=1)) == [4]


def test_a_control_behind_the_front_comes_last() -> None:
    trials = [
        tried(0, 0.9, 1.0),
        tried(1, 0.6, 2.0, scheme="none"),
        tried(2, 0.7, 3.0, scheme="none"),
        tried(3, 0.7, 2.5, scheme="none"),
        tried(4, 0.5, 9.0, scheme="none", student="bag"),
        tried(5, 0.99, None, scheme="none"),
    ]
    assert choose(trials, FinalistsSpec()) == [0, 4, 3]
    assert choose([], FinalistsSpec()) == []
