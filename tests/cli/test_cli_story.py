"""What a trial went through, and how sure the front is, as the command line tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsearch.core.records import Decision, Standing
from kdsearch.store import leases, studies
from kdsearch.store.connect import Store
from kdsearch.store.standings import set_standings

Run = Callable[..., Any]


def test_trial_show_says_what_was_decided_and_who_worked_on_it(
    kdsearch: Run, store: Store, filled: str
) -> None:
    decision = Decision(
        action="continue", rule="front", reason="it may reach the front", epoch=2, inputs={"bar": 0.875}
    )
    study_id = studies.find_study(store.engine, "opinions").id
    with leases.study_turn(store.engine, study_id) as connection:
        leases.decide(connection, study_id, 6, decision)
    shown = kdsearch("trial", "show", "opinions", "6", storage=filled).out
    assert "continue after epoch 2 (front): it may reach the front\n  bar 0.875\n" in shown
    assert "host-1" in shown and "goes on" in shown
    data = kdsearch("trial", "show", "opinions", "6", "--json", storage=filled).data("trial")
    (said,) = data["decisions"]
    assert (said["action"], said["rule"], said["epoch"], said["inputs"]) == (
        "continue",
        "front",
        2,
        {"bar": 0.875},
    )
    assert [one["ended"] for one in data["attempts"]] == [None]
    failed = kdsearch("trial", "show", "opinions", "5", storage=filled).out
    assert "exception, " in failed and "it broke here" in failed


def test_standings_are_shown_and_decide_which_is_best(kdsearch: Run, store: Store, filled: str) -> None:
    study_id = studies.find_study(store.engine, "opinions").id
    common = {"low": 0.8, "high": 0.95, "seeds": (1, 17)}
    found = [
        Standing(number=0, quality=0.92, on_front=0.99, **common),
        Standing(number=1, quality=0.91, on_front=0.5, **common),
        Standing(number=2, quality=0.85, on_front=0.01, **common),
    ]
    set_standings(store.engine, study_id, found)
    shown = kdsearch("pareto", "opinions", storage=filled, COLUMNS="160").out
    rows = {line.split()[0]: line for line in shown.splitlines() if line.lstrip()[:1].isdigit()}
    assert "0.920 (0.800 to 0.950)" in rows["0"]
    assert "on the front" in rows["0"] and "tie" in rows["1"] and "behind" in rows["2"]
    data = kdsearch("pareto", "opinions", "--json", storage=filled).data("pareto")
    assert [trial["standing"] and trial["standing"]["verdict"] for trial in data["trials"]] == [
        "on the front",
        "tie",
        "behind",
        None,
        None,
        None,
        None,
    ]
    # trial 1 has the best single training, trial 0 the best mean
    assert kdsearch("best", "opinions", "-q", storage=filled).out == "0\n"
