"""`kdsearch trial bench`: a stored student, measured again in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdsearch.core.errors import ConflictError, UsageError
from kdsearch.core.spec import LatencySpec
from kdsearch.store import reads
from kdsearch.worker.remeasure import protocol, remeasure

SPEC = LatencySpec(warmup=2, min_queries=20, min_seconds=0.0)


def test_it_is_measured_beside_what_was_recorded_and_nothing_changes(world, tmp_path: Path) -> None:
    number = world.complete("textcnn")
    store = world.store
    before = world.trial(number)
    env = {
        **os.environ,
        "KDSEARCH_STORAGE": store.url,
        "KDSEARCH_ARTIFACTS": store.artifacts_url,
        "KDSEARCH_HOME": str(store.home),
        "KDSEARCH_LOCKS": str(tmp_path),
    }
    asked = ["trial", "bench", "tiny", str(number), "--queries", "30", "--seconds", "0", "--batch-size", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", "kdsearch", *asked, "--json"], env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    data = json.loads(ran.stdout)["data"]
    assert data["measured"]["num_queries"] >= 30
    assert data["measured"]["profile"]["batch_size"] == 2
    assert data["recorded"] == json.loads(json.dumps(before.latency.to_json()))
    assert data["same_profile"] is False
    assert world.trial(number) == before


def test_the_figures_are_those_of_the_student(world, tmp_path: Path) -> None:
    small, large = world.complete("bag"), world.complete("bert_small")
    study = reads.study(world.store.engine, "tiny")
    found = [
        remeasure(world.store, study, world.trial(number), SPEC, lock_folder=tmp_path)
        for number in (small, large)
    ]
    assert all(latency.num_queries >= 20 and latency.p50_ms <= latency.p90_ms for latency in found)
    assert found[0].num_params < found[1].num_params


def test_a_trial_without_a_student_is_a_conflict(world, tmp_path: Path) -> None:
    from dataclasses import replace

    row = replace(world.trial(world.complete("bag")), artifact=None, state="stopped")
    with pytest.raises(ConflictError, match="is stopped: it has no student"):
        remeasure(world.store, reads.study(world.store.engine, "tiny"), row, SPEC, lock_folder=tmp_path)


def test_a_protocol_is_the_studys_but_for_what_is_asked() -> None:
    stored = LatencySpec(threads=3).model_dump()
    assert protocol(stored, {"threads": None, "device": None}) == LatencySpec(threads=3)
    assert protocol(stored, {"threads": 1, "min_queries": 50}) == LatencySpec(threads=1, min_queries=50)
    assert protocol(stored, {"device": "cuda"}).runtime == "torch"
    with pytest.raises(UsageError, match="such a protocol cannot be"):
        protocol(stored, {"device": "cuda", "runtime": "onnx"})
