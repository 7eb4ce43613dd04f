"""Requests are carried out between trials, while a study is paused, after it is done; failures say why."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kdsearch.cli.asked import export_asked
from kdsearch.core.errors import VerificationError
from kdsearch.core.studyfile import StudyFile
from kdsearch.store import controls, reads, requests, telling
from kdsearch.store.connect import Store
from kdsearch.store.requests import RequestRow
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]
Say = Callable[[str], None]


def never() -> bool:
    return False


def newest(store: Store, study_id: int) -> RequestRow:
    return requests.requests(store.engine, study_id)[0]


def export_nothing(store: Store, study: str, arguments: Mapping[str, Any], to: Path, say: Say) -> int:
    """An export that costs nothing."""
    say("packing")
    to.mkdir()
    (to / "README.md").write_text(f"{study} {dict(arguments)}")
    return int(arguments["trial"])


@pytest.fixture
def exporting(options: WorkerOptions) -> WorkerOptions:
    return replace(options, export=export_nothing)


@pytest.fixture
def done(store: Store, write_study: Write, finish: Finish) -> int:
    """The id of a study that is done; no worker is left."""
    assert finish(write_study(trials=2, epochs=1)) == "done"
    return reads.study(store.engine, "tiny").id


def test_the_student_of_a_study_that_is_done_is_exported_for_real(
    store: Store, done: int, options: WorkerOptions, tmp_path: Path
) -> None:
    requests.file(store.engine, "tiny", "export", {"within": {"latency_ms": 500.0}})
    assert work(store, "tiny", options=replace(options, export=export_asked), should_stop=never) == "done"
    row = newest(store, done)
    assert (row.state, row.error) == ("done", None)
    assert row.result is not None
    number = row.result["trial"]
    assert row.result["name"] == f"tiny-trial{number}.zip"
    path = store.blobs.open(row.result["artifact"])
    assert path.stat().st_size == row.result["bytes"]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    assert (tmp_path / "out" / f"tiny-trial{number}" / "model.safetensors").is_file()


def test_what_cannot_be_done_says_why_and_what_to_do(
    store: Store, done: int, exporting: WorkerOptions
) -> None:
    engine = store.engine
    for kind, arguments in (
        ("pause", {}),
        ("enqueue", {"params": {"student": "bilstm"}}),
        ("enqueue", {}),
        ("export", {"trial": "x"}),
    ):
        requests.file(engine, "tiny", kind, arguments)  # type: ignore[arg-type]
    assert work(store, "tiny", options=exporting, should_stop=never) == "done"
    broken, nothing, unknown, over = requests.requests(engine, done)
    assert {row.state for row in (broken, nothing, unknown, over)} == {"failed"}
    assert "is done" in str(over.error)
    assert "extend tiny --trials N" in str(over.error)
    assert "is done" in str(unknown.error)
    assert "nothing was said to be tried" in str(nothing.error)
    assert "unexpected ValueError" in str(broken.error)


def test_an_export_that_is_not_what_was_measured_fails(
    store: Store, done: int, options: WorkerOptions
) -> None:
    def wrong(*_: Any) -> int:
        raise VerificationError("logits differ by 0.2", hint="what was written is in /tmp/gone")

    requests.file(store.engine, "tiny", "export", {"trial": 0})
    work(store, "tiny", options=replace(options, export=wrong), should_stop=never)
    row = newest(store, done)
    assert row.state == "failed"
    assert "logits differ by 0.2 (to look at what was written: kdsearch export tiny" in str(row.error)


def test_a_paused_study_hears_that_it_is_to_go_on(
    store: Store, write_study: Write, exporting: WorkerOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    study_id = create_or_resume(store, write_study(trials=2, epochs=1), on_progress=lambda _: None).id
    requests.file(store.engine, "tiny", "pause", {})
    outcome: list[str] = []
    worker = threading.Thread(
        target=lambda: outcome.append(work(store, "tiny", options=exporting, should_stop=never))
    )
    worker.start()
    wait_for(lambda: reads.study(store.engine, "tiny").state == "paused")
    assert reads.trials(store.engine, study_id) == []
    requests.file(store.engine, "tiny", "resume", {})
    worker.join(timeout=300)
    assert outcome == ["done"]
    assert {row.state for row in requests.requests(store.engine, study_id)} == {"done"}
    assert capsys.readouterr().out.count("this worker waits") == 1


def wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(3000):
        if happened():
            return
        threading.Event().wait(0.1)
    raise AssertionError("it did not happen")


def test_what_a_person_enqueued_is_the_next_trial(
    store: Store, write_study: Write, exporting: WorkerOptions
) -> None:
    study_id = create_or_resume(store, write_study(trials=2, epochs=1), on_progress=lambda _: None).id
    params = {"student": "bag", "scheme": "offline", "offline.lambda": 0.5}
    requests.file(store.engine, "tiny", "enqueue", {"params": params})
    assert work(store, "tiny", options=exporting, should_stop=never) == "done"
    row = newest(store, study_id)
    assert row.result is not None
    asked = reads.trial(store.engine, study_id, row.result["trial"])
    assert (asked.origin, asked.state) == ("enqueued", "complete")
    assert {name: asked.params[name] for name in params} == params
    assert asked.started_at == min(trial.started_at for trial in reads.trials(store.engine, study_id))


def test_the_request_of_a_dead_worker_is_taken_again(
    store: Store, done: int, exporting: WorkerOptions
) -> None:
    requests.file(store.engine, "tiny", "export", {"trial": 0})
    assert requests.take(store.engine, done, "killed", 60) is not None
    work(store, "tiny", options=exporting, should_stop=never)
    assert newest(store, done).state == "running"  # its worker may be alive
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE kdsearch.request SET expires_at = '-infinity'"))
    work(store, "tiny", options=exporting, should_stop=never)
    assert newest(store, done).state == "done"


def test_a_worker_that_is_to_stop_gives_its_request_back(
    store: Store, done: int, options: WorkerOptions
) -> None:
    asked_to = threading.Event()

    def slow(store: Store, study: str, arguments: Mapping[str, Any], to: Path, say: Say) -> int:
        asked_to.set()
        say("evaluating")
        raise AssertionError("it went on")

    requests.file(store.engine, "tiny", "export", {"trial": 0})
    stopping = replace(options, export=slow)
    assert work(store, "tiny", options=stopping, should_stop=asked_to.is_set) == "stopped"
    row = newest(store, done)
    assert (row.state, row.error) == ("waiting", None)


# ---------------------------------------------------------------- what people do to a study meanwhile


def test_a_drained_worker_leaves_and_its_trial_waits(
    store: Store, write_study: Write, options: WorkerOptions
) -> None:
    file = write_study(trials=1, epochs=500)
    study_id = create_or_resume(store, file, on_progress=lambda _: None).id
    outcome: list[str] = []
    quick = replace(options, lease_s=3.0)
    worker = threading.Thread(
        target=lambda: outcome.append(work(store, "tiny", options=quick, should_stop=never))
    )
    worker.start()
    wait_for(lambda: bool(reads.trials(store.engine, study_id, "running")))
    (row,) = reads.workers(store.engine, study_id)
    controls.drain(store.engine, row.id)
    worker.join(timeout=300)
    assert outcome == ["stopped"]
    assert reads.trial(store.engine, study_id, 0).state == "waiting"
    assert reads.workers(store.engine, study_id)[0].state == "retired"


def test_a_stopped_study_ends_under_its_worker(
    store: Store, write_study: Write, options: WorkerOptions
) -> None:
    study_id = create_or_resume(store, write_study(trials=1, epochs=500), on_progress=lambda _: None).id
    outcome: list[str] = []
    quick = replace(options, lease_s=3.0)
    worker = threading.Thread(
        target=lambda: outcome.append(work(store, "tiny", options=quick, should_stop=never))
    )
    worker.start()
    wait_for(lambda: bool(reads.trials(store.engine, study_id, "running")))
    assert controls.stop(store.engine, "tiny") == [0]
    worker.join(timeout=300)
    assert outcome == ["done"]
    row = reads.trial(store.engine, study_id, 0)
    assert (row.state, row.artifact) == ("stopped", None)
    assert telling.untold(store.engine, study_id) == []


def test_whoever_comes_to_a_stopped_study_says_how_sure_its_front_is(
    store: Store, write_study: Write, finish: Finish, options: WorkerOptions
) -> None:
    finish(write_study(trials=2, epochs=1))
    study_id = reads.study(store.engine, "tiny").id
    controls.extend(store.engine, "tiny", trials=1)
    controls.stop(store.engine, "tiny")
    assert reads.standings(store.engine, study_id) == []
    assert work(store, "tiny", options=options, should_stop=never) == "done"
    assert len(reads.standings(store.engine, study_id)) == 2
    assert len(reads.trials(store.engine, study_id)) == 2
    controls.rerun(store.engine, "tiny", 0, [11])
    assert work(store, "tiny", options=options, should_stop=never) == "done"
    assert len(reads.trials(store.engine, study_id)) == 2  # nothing new began
    seeds = {row.number: row.seeds for row in reads.standings(store.engine, study_id)}
    assert seeds == {0: (5, 11), 1: (5,)}
