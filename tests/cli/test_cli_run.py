"""`kdsearch run` and its relatives as processes: to the end, stopped, resumed, killed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsearch.store import reads
from kdsearch.store.connect import Store

Run = Callable[..., Any]
STUDY = """\
version: 1
name: {name}
data:
  train: synthetic://spam_opinions?rows={rows}&seed=1
  validation: synthetic://spam_opinions?rows=80&seed=2
teacher:
  build: {{layers: 1, hidden: 16, heads: 2, vocab_size: 400}}
  max_length: 24
  finetune: {{epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 1}}
constraints:
  latency_ms: {{max: {max_ms}}}
students:
  - {{type: textcnn, filters: 8, embed_dim: 8, kernel_sizes: [[2, 3]]}}
  - {{type: bag, embed_dim: 8, hidden: 8}}
training: {{epochs: {epochs}, batch_size: 32, seed: 5}}
latency: {{warmup: 2, min_queries: 10, min_seconds: 0}}
budget: {{trials: {trials}, failed: 2}}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A study file that takes seconds."""

    def write(
        name: str = "tiny", *, rows: int = 160, epochs: int = 1, trials: int = 4, max_ms: float = 1000.0
    ) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(STUDY.format(name=name, rows=rows, epochs=epochs, trials=trials, max_ms=max_ms))
        return path

    return write


def started(environment: dict[str, str], storage: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kdsearch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "KDSEARCH_STORAGE": storage},
    )


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str], *, seconds: float = 540.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, f"it ended early: {child.communicate()}"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def states(store: Store, name: str) -> list[str]:
    known = [study for study in reads.studies(store.engine) if study.name == name]
    return [trial.state for study in known for trial in reads.trials(store.engine, study.id)]


def children_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(folder.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_ends_with_its_front_and_run_again_shows_it_again(
    kdsearch: Run, store: Store, write: Callable[..., Path]
) -> None:
    file = write()
    first = kdsearch("run", str(file), "--workers", "2", "--json", storage=store.url)
    data = first.data("run")
    assert data["state"] == "done"
    assert data["trial_counts"] == {"complete": 4}
    assert {trial["scheme"] for trial in data["trials"]} == {"none", "offline"}
    assert any(trial["on_front"] for trial in data["trials"])
    assert data["teacher"]["latency_ms"] > 0
    finished = [line for line in first.err.splitlines() if " trial " in line and "complete" in line]
    assert len(finished) == 4
    assert "[4/4]" in finished[-1]
    again = kdsearch("run", str(file), "-q", storage=store.url)
    members = [str(trial["trial"]) for trial in data["trials"] if trial["on_front"]]
    assert again.code == 0
    assert sorted(again.out.split()) == members
    assert again.err == ""


def test_ctrl_c_drains_and_the_same_command_goes_on(
    kdsearch: Run, store: Store, write: Callable[..., Path], environment: dict[str, str]
) -> None:
    file = write(rows=2000, epochs=15, trials=3)
    with started(environment, store.url, "run", str(file), "--workers", "2") as child:
        wait_for(lambda: "running" in states(store, "tiny"), child)
        workers = children_of(child.pid)
        assert len(workers) == 2
        assert {os.getsid(pid) for pid in workers} == set(workers)  # the terminal's Ctrl-C misses them
        lines = [(Path("/proc") / str(pid) / "cmdline").read_bytes().decode() for pid in workers]
        assert not any("postgresql" in line for line in lines)
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=540)
    assert child.returncode == 130, said
    assert out == ""
    assert f"to go on: kdsearch run {file} --workers 2" in said
    assert not any(is_running(pid) for pid in workers)
    assert "running" not in states(store, "tiny")
    assert set(states(store, "tiny")) <= {"waiting", "complete"}
    resumed = kdsearch("run", str(file), "-q", storage=store.url)
    assert resumed.code == 0, resumed.err
    assert states(store, "tiny") == ["complete"] * 3


def test_workers_go_when_their_parent_is_killed(
    store: Store, write: Callable[..., Path], environment: dict[str, str]
) -> None:
    file = write(rows=400, epochs=400, trials=2)
    with started(environment, store.url, "run", str(file)) as child:
        wait_for(lambda: "running" in states(store, "tiny"), child)
        (worker,) = children_of(child.pid)
        child.kill()
    deadline = time.monotonic() + 540
    while is_running(worker):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.2)
    assert states(store, "tiny") == ["waiting"]


def test_twice_ctrl_c_kills(store: Store, write: Callable[..., Path], environment: dict[str, str]) -> None:
    file = write(rows=400, epochs=400, trials=2)
    with started(environment, store.url, "run", str(file)) as child:
        wait_for(lambda: "running" in states(store, "tiny"), child)
        workers = children_of(child.pid)
        os.kill(workers[0], signal.SIGSTOP)  # a worker that hears nothing
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        assert any("Ctrl-C once more kills" in line for line in child.stderr)  # two at once may count as one
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=120)
    assert child.returncode == 130
    assert not any(is_running(pid) for pid in workers)


def test_nothing_feasible_is_exit_6(kdsearch: Run, store: Store, write: Callable[..., Path]) -> None:
    answer = kdsearch("run", str(write(trials=2, max_ms=1e-6)), "--json", storage=store.url)
    assert answer.error(6)["code"] == "nothing_feasible"
    assert states(store, "tiny") == ["rejected", "rejected"]


def test_what_is_odd_about_the_texts_is_said_before_the_trials(
    kdsearch: Run, store: Store, write: Callable[..., Path]
) -> None:
    answer = kdsearch("run", str(write(trials=1)), storage=store.url)
    assert answer.code == 0, answer.err
    said = answer.err.splitlines()
    assert said[0] == "reading texts"
    assert said[1] == "warning: validation: 80 rows tell an accuracy of 90 % to within 6.6 points only"
    assert not any("worker start" in line for line in said)  # the run starts its workers itself
    (teacher,) = (number for number, line in enumerate(said) if line.startswith("teacher: accuracy 0."))
    assert said[teacher - 1].startswith("preparing:")


def test_a_changed_file_is_a_conflict_that_shows_the_difference(
    kdsearch: Run, store: Store, write: Callable[..., Path]
) -> None:
    file = write()
    created = kdsearch("study", "create", str(file), "--json", storage=store.url).data("study_created")
    assert created["next"] == "kdsearch worker start --study tiny"
    twice = kdsearch("study", "create", str(file), storage=store.url)
    assert twice.code == 4
    file.write_text(file.read_text().replace("seed: 5", "seed: 6"))
    changed = kdsearch("run", str(file), storage=store.url)
    assert changed.code == 4
    assert "+training" in changed.err
    assert changed.out == ""


def test_study_validate(kdsearch: Run, write: Callable[..., Path]) -> None:
    file = write()
    data = kdsearch("study", "validate", str(file), "--json").data("validate")
    assert data["study"] == "tiny"
    assert data["students"] == ["textcnn", "bag"]
    assert data["budget"]["trials"] == 4
    assert "is valid" in kdsearch("study", "validate", str(file)).out


def test_a_study_file_with_mistakes_shows_all_of_them(kdsearch: Run, write: Callable[..., Path]) -> None:
    file = write()
    file.write_text(file.read_text().replace("textcnn", "textcn").replace("epochs: 1, b", "epochs: -1, b"))
    for command in (("study", "validate"), ("study", "create"), ("run",)):
        answer = kdsearch(*command, str(file), "--json", KDSEARCH_STORAGE="")
        error = answer.error(2)
        assert error["code"] == "study_file"
        assert len(error["problems"]) == 2
        assert all(problem["line"] for problem in error["problems"])
    shown = kdsearch("study", "validate", str(file)).err
    assert "tiny.yaml:" in shown
    assert "did you mean" in shown.lower()
    assert "Traceback" not in shown


def test_a_study_file_that_is_not_there(kdsearch: Run) -> None:
    for command in (("run",), ("study", "validate"), ("study", "create")):
        answer = kdsearch(*command, "nowhere.yaml", "--json")
        assert "nowhere.yaml" in answer.error(2)["message"]


def test_a_gpu_that_is_not_there(kdsearch: Run, store: Store, fresh: str) -> None:
    answer = kdsearch("worker", "start", "--study", fresh, "--device", "cuda:99", storage=store.url)
    assert answer.code == 2
    assert "cuda:99" in answer.err
    assert "tpu" in kdsearch("worker", "start", "--study", fresh, "--device", "tpu", storage=store.url).err


def test_a_worker_in_json_says_how_it_ended(kdsearch: Run, store: Store, write: Callable[..., Path]) -> None:
    kdsearch("study", "create", str(write(trials=1)), storage=store.url)
    answer = kdsearch("worker", "start", "--study", "tiny", "--json", storage=store.url)
    assert answer.data("worker") == {"study": "tiny", "outcome": "done"}
    json.loads(answer.out)
    assert states(store, "tiny") == ["complete"]
