"""Workers that die under `kdsearch run`: what they held is free at once, and others take their place."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli import fleet as fleet_module
from kdsearch.cli.fleet import MOST_STARTS, Fleet
from kdsearch.store import leases, reads, studies, workers
from kdsearch.store.connect import Store

STUDY = """\
version: 1
name: mortal
data:
  train: synthetic://spam_opinions?rows=1500&seed=1
  validation: synthetic://spam_opinions?rows=60&seed=2
teacher:
  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 400}
  max_length: 24
  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 64, anchors: 1}
students:
  - {type: bag, embed_dim: 8, hidden: 8}
schemes: [{type: none}]
training: {epochs: 12, batch_size: 32, seed: 5}
latency: {warmup: 2, min_queries: 10, min_seconds: 0}
budget: {trials: 1, failed: 2}
"""


def wait_for(condition: Callable[[], bool], *, seconds: float = 540.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def ends_with(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Workers are processes that run this instead."""
    monkeypatch.setattr(fleet_module, "command_line", lambda *_: [sys.executable, "-c", code])


def tended(fleet: Fleet, store: Store) -> list[str]:
    """What was said until nobody was alive any more."""
    said: list[str] = []

    def nobody_is_left() -> bool:
        said.extend(fleet.tend(store.engine))
        return not fleet.alive

    wait_for(nobody_is_left)
    return said


@pytest.fixture
def fleet(store: Store, fresh: str, tmp_path: Path) -> Fleet:
    return Fleet(fresh, folder=tmp_path / "logs", environment=os.environ)


def test_workers_that_keep_dying_are_not_replaced_for_ever(
    store: Store, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    fleet.start(["cpu"], threads=1)
    said = tended(fleet, store)
    assert len(said) == MOST_STARTS + 1
    assert all("killed by SIGKILL" in line for line in said)
    assert [line.endswith("takes its place") for line in said] == [True] * MOST_STARTS + [False]
    fleet.kill()


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 8, 130, 143])
def test_workers_that_end_by_themselves_are_not_replaced(
    store: Store, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    ends_with(monkeypatch, f"raise SystemExit({code})")
    fleet.start(["cpu"], threads=1)
    (worker,) = fleet.workers
    assert tended(fleet, store) == []
    assert fleet.workers == [worker]
    assert worker.exit_code == code


def test_an_error_that_was_told_is_no_death_and_a_hang_is(
    store: Store, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = '{"schema": "kdsearch.error/v1", "error": {"code": "kdsearch", "message": "no", "hint": ""}}'
    ends_with(monkeypatch, f"print({error!r}); raise SystemExit(1)")
    fleet.start(["cpu"], threads=1)
    assert tended(fleet, store) == []
    ends_with(monkeypatch, "print('no step for 900 s'); raise SystemExit(1)")
    fleet.start(["cpu"], threads=1)
    assert "it made no step for too long" in tended(fleet, store)[0]
    fleet.kill()


def test_what_a_killed_worker_held_is_free_at_once(
    store: Store, fleet: Fleet, fresh: str, monkeypatch: pytest.MonkeyPatch, filled: str
) -> None:
    study_id = studies.find_study(store.engine, "opinions").id
    mortal = Fleet("opinions", folder=store.home / "logs", environment=os.environ)
    monkeypatch.setattr(fleet_module, "MOST_STARTS", 0)
    ends_with(monkeypatch, "import os, sys, time; print('on its way', flush=True); time.sleep(600)")
    mortal.start(["cpu"], threads=1)
    (worker,) = mortal.workers
    me = workers.NewWorker(
        id="host-1", study_id=study_id, host=socket.gethostname(), pid=worker.process.pid, device="cpu"
    )
    workers.register(store.engine, me)
    assert reads.trial(store.engine, study_id, 6).state == "running"
    wait_for(lambda: "on its way" in worker.log.read_text())
    worker.process.send_signal(signal.SIGSEGV)
    worker.process.wait()
    monkeypatch.setattr(mortal, "_may_start", lambda: False)
    (said,) = mortal.tend(store.engine)
    assert "killed by SIGSEGV" in said
    wait_for(lambda: reads.trial(store.engine, study_id, 6).state == "waiting")
    (attempt,) = reads.attempts(store.engine, study_id, 6)
    assert attempt.ended == "crash"
    assert attempt.traceback.startswith("killed by SIGSEGV\n")
    assert "on its way" in attempt.traceback
    assert mortal.tend(store.engine) == []


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


def test_a_run_survives_the_death_of_its_worker(
    store: Store, environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "mortal.yaml"
    file.write_text(STUDY)

    def epochs() -> int:
        if "mortal" not in {study.name for study in reads.studies(store.engine)}:
            return 0
        study_id = reads.study(store.engine, "mortal").id
        return len(reads.epochs(store.engine, study_id, 0)) if reads.trials(store.engine, study_id) else 0

    child = subprocess.Popen(
        [sys.executable, "-m", "kdsearch", "run", str(file), "--json", "--device", "cpu"],
        env={**environment, "KDSEARCH_STORAGE": store.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            wait_for(lambda: epochs() > 0 or child.poll() is not None)
            (worker,) = children_of(child.pid)
            os.kill(worker, signal.SIGKILL)
            out, said = child.communicate(timeout=540)
        finally:
            child.kill()
    assert child.returncode == 0, out + said
    assert "killed by SIGKILL" in said
    study_id = reads.study(store.engine, "mortal").id
    ends: list[Any] = [row.ended for row in reads.attempts(store.engine, study_id, 0)]
    assert ends == ["crash", "finished"], "it struck, and counted once"
    assert [row.epoch for row in reads.epochs(store.engine, study_id, 0)] == list(range(1, 13))
    assert leases.MAX_DEATHS > 1
