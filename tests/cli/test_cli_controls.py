"""Commands that steer: what they say, what they change, what is in their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kdsearch.cli import controls
from kdsearch.core.errors import UsageError
from kdsearch.store import reads, studies, workers
from kdsearch.store.connect import Store
from kdsearch.store.transactions import begin
from kdsearch.store.workers import NewWorker

Run = Callable[..., Any]


def state(store: Store, name: str = "opinions") -> str:
    return reads.study(store.engine, name).state


def test_a_study_is_paused_and_goes_on(inside: Run, store: Store, filled: str) -> None:
    answer = inside("study", "pause", "opinions", "--json", storage=filled)
    assert answer.data("study_state") == {"study": "opinions", "state": "paused", "changed": True}
    assert state(store) == "paused"
    again = inside("study", "pause", "opinions", storage=filled)
    assert again.out == "study opinions was paused already\n"
    assert "kdsearch study resume opinions" in again.err
    assert "kdsearch study resume opinions" in inside("study", "show", "opinions", storage=filled).err
    assert inside("study", "resume", "opinions", "-q", storage=filled).out == "opinions\n"
    assert state(store) == "open"


def test_a_study_is_stopped_and_extended(inside: Run, store: Store, filled: str) -> None:
    answer = inside("study", "stop", "opinions", storage=filled)
    assert answer.out == "study opinions is done; stopped: 6\n"
    assert state(store) == "done"
    assert inside("study", "stop", "opinions", "--json", storage=filled).error(4)["code"] == "conflict"
    more = inside("study", "extend", "opinions", "--trials", "+3", "--json", storage=filled)
    data = more.data("study_extended")
    assert (data["state"], data["added"], data["budget"]["trials"]) == ("open", {"trials": 3}, 10)
    assert inside("study", "extend", "opinions", "--hours", "1", "--json", storage=filled).error(4)
    assert "--trials 20" in inside("study", "extend", "opinions", storage=filled).err


def test_deleting_needs_a_yes(inside: Run, store: Store, filled: str) -> None:
    refused = inside("study", "delete", "opinions", "--json", storage=filled).error(2)
    assert "study opinions with 7 trials" in refused["message"]
    assert refused["hint"] == "--yes says so beforehand"
    both = inside("study", "delete", "opinions", "--dry-run", "--with-artifacts", "--json", storage=filled)
    assert both.data("study_deleted")["artifact_bytes"] >= 0
    dry = inside("study", "delete", "opinions", "--dry-run", storage=filled)
    assert dry.out == "would delete study opinions with 7 trials\n"
    assert state(store) == "open"
    data = inside("study", "delete", "opinions", "--yes", "--json", storage=filled).data("study_deleted")
    assert data == {"study": "opinions", "deleted": True, "trials": 7, "artifact_bytes": 0}
    assert reads.studies(store.engine) == []
    assert inside("study", "delete", "opinions", "--yes", "--json", storage=filled).error(3)


def test_a_failed_trial_is_tried_again(inside: Run, store: Store, filled: str) -> None:
    answer = inside("trial", "retry", "opinions", "5", storage=filled)
    assert answer.out == "trial 5 waits for a worker\n"
    assert "kdsearch worker start --study opinions" in answer.err
    study = reads.study(store.engine, "opinions")
    assert reads.trial(store.engine, study.id, 5).state == "waiting"
    assert inside("trial", "retry", "opinions", "1", "--json", storage=filled).error(4)
    assert inside("trial", "retry", "opinions", "99", "--json", storage=filled).error(3)


def test_a_complete_trial_is_trained_again(inside: Run, store: Store, filled: str) -> None:
    data = inside("trial", "rerun", "opinions", "1", "--seeds", "4, 5", "--json", storage=filled).data(
        "trial_rerun"
    )
    assert data == {"study": "opinions", "trial": 1, "trainings": 2}
    study = reads.study(store.engine, "opinions")
    assert [repeat.seed for repeat in reads.repeats(store.engine, study.id)] == [4, 5]
    again = inside("trial", "rerun", "opinions", "1", "--seeds", "4", storage=filled)
    assert again.out == "it had those seeds already\n"
    assert inside("trial", "rerun", "opinions", "1", "--seeds", "four", "--json", storage=filled).error(2)
    assert inside("trial", "rerun", "opinions", "5", "--json", storage=filled).error(4)


def test_workers_are_listed_and_drained(inside: Run, store: Store, filled: str) -> None:
    empty = inside("worker", "list", "opinions", storage=filled)
    assert (empty.out, "kdsearch worker start --study opinions" in empty.err) == ("", True)
    study = reads.study(store.engine, "opinions")
    for name in ("host-1", "host-2"):
        workers.register(
            store.engine, NewWorker(id=name, study_id=study.id, host="host", pid=7, device="cpu")
        )
    workers.retire(store.engine, "host-2")
    (row,) = inside("worker", "list", "opinions", "--json", storage=filled).data("workers")["workers"]
    assert (row["id"], row["doing"], row["trial"]) == ("host-1", "at work", 6)
    assert (
        inside("worker", "drain", "host-1", storage=filled).out == "worker host-1 leaves at its next beat\n"
    )
    shown = inside("worker", "list", "opinions", "--all", storage=filled).out.splitlines()
    assert [line.split("  ")[1] for line in shown[1:]] == ["leaving", "left"]
    assert inside("worker", "drain", "host-2", "--json", storage=filled).error(4)
    nobody = inside("worker", "drain", "host-3", "--json", storage=filled).error(3)
    assert "host-" in nobody["hint"]


def test_a_worker_without_a_sign_of_life_is_silent(inside: Run, store: Store, filled: str) -> None:
    study = studies.find_study(store.engine, "opinions")
    workers.register(
        store.engine, NewWorker(id="host-1", study_id=study.id, host="host", pid=7, device="cpu")
    )
    with begin(store.engine) as connection:
        connection.exec_driver_sql("UPDATE kdsearch.worker SET seen_at = seen_at - interval '1 hour'")
    assert inside("worker", "list", "opinions", storage=filled).out.splitlines()[1].split("  ")[1] == "silent"


def test_a_no_changes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    monkeypatch.setattr("sys.stdin", SpokenTo())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda question, err: False)
    with pytest.raises(typer.Exit) as caught:
        controls._confirm("delete it?", yes=False)
    assert caught.value.exit_code == 130
    controls._confirm("delete it?", yes=True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    with pytest.raises(UsageError):
        controls._confirm("delete it?", yes=False)


class SpokenTo:
    def isatty(self) -> bool:
        return True
