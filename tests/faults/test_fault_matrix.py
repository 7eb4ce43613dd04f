"""A fast part of the fault matrix, and proof that its checks and its table can fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults import checks, ground, matrix, strike
from benchmarks.faults.cases import ENVIRONMENTS, VARIANTS, Case, all_cases, chosen
from benchmarks.faults.ground import UNDISTURBED, Ground
from benchmarks.faults.strike import Outcome

FAST = (
    Case("SIGKILL", "row", "restart"),
    Case("SIGTERM", "epoch", "full"),
    Case("SIGSTOP", "checkpoint", "nothing"),
    Case("exception", "lease", "restart"),
    Case("hang", "result", "nothing"),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A server with the study, once as nobody disturbed it."""
    with ground.laid(tmp_path_factory.mktemp("faults")) as laid:
        assert strike.undisturbed(laid) == []
        yield laid


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_nothing_is_lost_and_nothing_counts_twice(prepared: Ground, case: Case) -> None:
    name = case.name.replace("/", "_")
    outcome = strike.run(case, prepared, name)
    assert outcome.wrong == []
    assert len(outcome.ends) == ground.TRIALS


DAMAGE = {
    "a_budget_overspent_or_not_spent": "UPDATE kdsearch.study SET budget_trials = 4",
    "Optuna_knows_more_or_fewer_trials": "UPDATE kdsearch.trial SET optuna_trial_id = 99 WHERE number = 2",
    "a_number_left_out": "DELETE FROM kdsearch.trial WHERE number = 1",
    "a_study_that_is_not_done": "UPDATE kdsearch.study SET state = 'open'",
    "a_result_lost": (
        "UPDATE kdsearch.trial SET state = 'failed', failure = '{\"kind\": \"attempts\"}' WHERE number = 1"
    ),
    "a_lease_left": (
        "UPDATE kdsearch.trial SET state = 'running', told = false, finished_at = NULL,"
        " expires_at = clock_timestamp() WHERE number = 1"
    ),
    "an_attempt_without_an_end": "UPDATE kdsearch.attempt SET ended = NULL, ended_at = NULL WHERE number = 0",
    "an_attempt_that_is_not_on_record": "UPDATE kdsearch.trial SET attempt = 2 WHERE number = 0",
    "a_trial_ended_more_or_less_than_once": "UPDATE kdsearch.attempt SET ended = 'paused' WHERE number = 0",
    "deaths_counted_wrong": "UPDATE kdsearch.trial SET deaths = 1 WHERE number = 0",
    "epochs_counted_wrong": "DELETE FROM kdsearch.epoch WHERE number = 0 AND epoch = 2",
    "a_row_seen_twice": "UPDATE kdsearch.epoch SET rows_seen = rows_seen + 1 WHERE number = 0 AND epoch = 1",
    "Optuna_was_not_told_or_told_otherwise": "UPDATE trial_values SET value = value + 0.001",
    "an_artifact_that_is_not_on_record": "DELETE FROM kdsearch.artifact",
}


def test_the_checks_find_what_is_wrong(prepared: Ground) -> None:
    named = {name for name in checks.wrongs() if name != "a_failure_that_is_not_what_struck"}
    assert set(DAMAGE) == named
    for number, (wrong, statement) in enumerate(DAMAGE.items()):
        with prepared.damaged(UNDISTURBED, f"damaged_{number}", statement) as name:
            assert prepared.query(name, checks.wrongs()[wrong], failed=-1), wrong
    failure = checks.wrongs()["a_failure_that_is_not_what_struck"]
    assert prepared.query(UNDISTURBED, failure, failed=0)


def test_a_result_of_other_weights_is_found(prepared: Ground) -> None:
    statement = (
        "UPDATE kdsearch.trial SET result = jsonb_set(result, '{artifact}', '\"other\"') WHERE number = 1"
    )
    with prepared.damaged(UNDISTURBED, "other_weights", statement) as name:
        found = checks.found_wrong(prepared, name)
        assert any(wrong.startswith("results differ") for wrong in found)
        assert any("not in the artifact store" in wrong for wrong in found)


def test_what_is_left_and_what_is_trained_again(tmp_path: Path) -> None:
    """Attempt 2 begins at step 3 of epoch 2 after somebody came to step 4; attempt 3 at the very start."""
    lines = ["a 0 1 0 0", "a 0 1 1 4", "b 0 2 1 3", "b 0 2 2 1", "c 0 3 0 0", "d 1 1 0 0"]
    (tmp_path / "steps.log").write_text("\n".join(lines))
    assert checks.trained_again(tmp_path) == {(0, 2): 1, (0, 3): 11}
    assert [wrong.split()[:5] for wrong in checks._again(tmp_path)] == [["attempt", "3", "at", "trial", "0"]]
    later = [*(f"a 0 1 1 {n}" for n in range(1, 5)), "b 0 2 1 0", "a 0 1 2 0"]
    for before, thread, meanwhile in (
        ("a 0 1 0 4", "delivering", {0: 4}),
        ("a 0 1 1 0", "delivering", {0: 5}),  # a step of the next epoch was made before it was struck
        ("a 0 1 1 0", "training", {}),
    ):
        (tmp_path / "steps.log").write_text("\n".join([before, f"a 0 1 {thread}", *later]))
        assert checks.trained_meanwhile(tmp_path) == meanwhile
        assert len(checks.steps(tmp_path)) == 1 + len(later)
    woken = ["a 0 1 1 4", "a 0 1 woken", "a 0 1 2 3", "b 0 2 1 0"]
    (tmp_path / "steps.log").write_text("\n".join(woken))
    assert checks.trained_again(tmp_path) == {(0, 2): 4}
    letter = tmp_path / "home" / "spool" / "study" / "worker" / "00000001.json"
    assert list(checks.left_over(tmp_path)) == []
    letter.parent.mkdir(parents=True)
    letter.touch()
    assert len(list(checks.left_over(tmp_path))) == 1


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        (Case("SIGTERM", "epoch", "nothing"), 0, ""),
        (Case("hang", "epoch", "nothing"), 1, "something else"),
        (Case("exception", "epoch", "nothing"), 0, "something else"),
        (Case("SIGKILL", "epoch", "nothing"), -9, ""),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_fault_that_did_not_strike_is_found(case: Case, code: int, said: str) -> None:
    assert list(checks.struck(case, code, said, [(0, ["finished"], ["worker"])]))


def test_the_matrix_is_whole_and_goes_on_where_it_was(tmp_path: Path) -> None:
    assert len({case.name for case in all_cases(2)}) == 250
    assert {case.variant for case in all_cases(2)} == {one for of in VARIANTS.values() for one in of}
    assert len(chosen("SIGKILL, epoch", 1)) == len(ENVIRONMENTS)
    journal = matrix.Journal(tmp_path / "journal.jsonl")
    cases = list(all_cases(1))
    journal.add(Outcome(cases[0].name, wrong=["lost"], seconds=3.0), "abc")
    assert "**FAILED**, 3 s" in matrix.report(journal, command="again")
    assert "`SIGKILL/lease/nothing/0` (abc): lost" in matrix.report(journal, command="again")
    for case in cases:
        journal.add(Outcome(case.name, seconds=1.0), "abc")
    said: list[str] = []
    matrix.run(cases, journal, jobs=1, say=said.append)
    assert said[0].startswith("0 cases to run, 125 are in")
    table = matrix.table(journal.entries())
    assert table.count("ok, 1 s") == 125
    assert "FAILED" not in table
    assert json.loads(journal.path.read_text().splitlines()[0])["wrong"] == ["lost"]
