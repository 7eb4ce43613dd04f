"""Joint trials and everything prepared for them, interrupted: the same bits as in one go."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.search import check
from kdsearch.store import reads
from kdsearch.store.connect import Store, open_store
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

Finish = Callable[[StudyFile], str]

JOINT = """\
version: 1
name: {name}
data:
  train: synthetic://spam_opinions?rows=96&seed=1
  validation: synthetic://spam_opinions?rows=60&seed=2
teacher:
  build: {{layers: 1, hidden: 16, heads: 2, vocab_size: 300}}
  max_length: 16
  pretrain: {{epochs: 2}}
  finetune: {{epochs: 2, learning_rate: 1e-3, batch_size: 32, anchors: 2}}
  joint: {{epochs: 3, learning_rate: 1e-3, batch_size: 32}}
teachers: [slice: 1/2]
students:
  - {{type: bag, embed_dim: 8, hidden: 8}}
schemes:
  - none
  - joint_isolated
  - {{type: joint_mutual, variant: [mutual, prokt]}}
  - joint_sum
training: {{epochs: 4, batch_size: 32, seed: 5}}
latency: {{warmup: 2, min_queries: 10, min_seconds: 0}}
budget: {{trials: 4}}
"""
ENDED = (
    "UPDATE kdsearch.trial SET expires_at = clock_timestamp() - interval '1 second' WHERE state = 'running'"
)
SHARED = "('teacher', 'pretrained', 'trajectory', 'signals')"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], StudyFile]:
    """The study under a name."""

    def written(name: str) -> StudyFile:
        path = tmp_path / f"{name}.yaml"
        path.write_text(JOINT.format(name=name))
        return check.load(path, {})

    return written


class Countdown:
    """Turns true at the n-th question."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def forget_what_is_shared(store: Store) -> None:
    """The next study prepares everything itself."""
    with store.engine.begin() as conn:
        conn.execute(text(f"DELETE FROM kdsearch.cache_entry WHERE kind IN {SHARED}"))


def outcome(store: Store, name: str) -> list[object]:
    """All that must be equal: what was prepared, the trials' weights, and their teachers' scores."""
    study = reads.study(store.engine, name)
    prepared = Prepared.load(store.blobs, str(study.prepared))
    assert prepared.trajectory is not None
    trials = reads.trials(store.engine, study.id)
    assert {trial.state for trial in trials} == {"complete"}
    return [
        prepared.teacher,
        prepared.teacher_start,
        prepared.anchors,
        prepared.signals,
        prepared.trajectory.logits,
        prepared.trajectory.scores,
        [
            (
                trial.scheme,
                json.loads(store.blobs.open(str(trial.artifact)).read_text())["tree"],
                trial.validation_logits,
                trial.teacher,
            )
            for trial in trials
        ],
    ]


def test_worked_on_in_pieces_equals_one_go(
    store: Store, write: Callable[[str], StudyFile], finish: Finish, options: WorkerOptions
) -> None:
    finish(write("whole"))
    forget_what_is_shared(store)
    create_or_resume(store, write("pieces"), on_progress=lambda _: None)
    pieces = 1
    while work(store, "pieces", options=options, should_stop=Countdown(17)) != "done":
        pieces += 1
    assert pieces > 8, "the interruptions must have struck in the middle of every step"
    assert outcome(store, "pieces") == outcome(store, "whole")


def _work_until_killed(url: str, artifacts: str, home: Path, name: str, options: WorkerOptions) -> None:
    with open_store(url, artifacts, home=home) as store:
        work(store, name, options=options, should_stop=lambda: False)


def test_killed_in_a_joint_trial_and_taken_over_equals_one_go(
    store: Store, write: Callable[[str], StudyFile], finish: Finish, options: WorkerOptions, tmp_path: Path
) -> None:
    finish(write("whole"))
    record = create_or_resume(store, write("killed"), on_progress=lambda _: None)
    arguments = (store.url, store.artifacts_url, tmp_path / "killed-home", "killed", options)
    worker = multiprocessing.get_context("fork").Process(target=_work_until_killed, args=arguments)
    store.engine.dispose()  # a connection must not be used on both sides of a fork
    worker.start()
    try:
        _wait_for_an_epoch(store, record.id, number=2)
        os.kill(int(worker.pid or 0), signal.SIGKILL)
    finally:
        worker.join(timeout=60)
    with store.engine.begin() as conn:
        conn.execute(text(ENDED))
    assert work(store, "killed", options=options, should_stop=lambda: False) == "done"
    assert outcome(store, "killed") == outcome(store, "whole")
    assert sum(trial.attempt for trial in reads.trials(store.engine, record.id)) >= 5


def _wait_for_an_epoch(store: Store, study_id: int, *, number: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if reads.epochs(store.engine, study_id, number):
            return
        time.sleep(0.01)
    raise AssertionError("the worker never came to that trial")
