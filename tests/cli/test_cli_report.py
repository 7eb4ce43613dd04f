"""`study report`: the table of a study, in every form, from what the study stored."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from kdsearch.core.records import HardwareProfile, Latency, Scores, TrialConfig, TrialResult
from kdsearch.core.spec import StudySpec
from kdsearch.core.studyfile import spec_to_json
from kdsearch.data.prepared import HistoricalTeacher, Prepared, PreparedPool
from kdsearch.data.tokens import TokenPool
from kdsearch.measure.quality import paired_bootstrap, score
from kdsearch.store import leases, readings, studies
from kdsearch.store.connect import Store
from kdsearch.store.studies import NewStudy
from kdsearch.store.transactions import begin

Run = Callable[..., Any]
LABELS = ("ham", "spam")
NUM_TRAIN, NUM_UNLABELLED, NUM_VALIDATION = 8, 20, 60
PROFILE = HardwareProfile(
    device_model="A CPU", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="own"
)
LATENCY = Latency(
    p50_ms=2.0,
    p90_ms=4.0,
    p99_ms=5.0,
    mean_ms=2.5,
    num_queries=200,
    seconds=1.0,
    size_mb=1.5,
    num_params=1000,
    tokenize_p50_ms=0.05,
    noisy=False,
    profile=PROFILE,
)
TRIALS: tuple[tuple[str, str, Mapping[str, Any], float], ...] = (
    ("textcnn", "none", {}, 0.2),
    ("textcnn", "none", {}, 0.4),
    ("textcnn", "offline", {"lambda": 0.5, "pools": "train+unlabelled"}, 0.1),
    ("textcnn", "joint_mutual", {"variant": "prokt"}, 0.3),
    ("bag", "offline", {"lambda": 1.0, "pools": "train"}, 0.3),
)
"""Student, scheme, its parameters, and the share of validation rows that it gets wrong."""


def pool(name: str, labels: list[int]) -> TokenPool:
    rows = len(labels)
    return TokenPool(
        name=name,
        ids=np.zeros(rows, np.int32),
        offsets=np.arange(rows + 1, dtype=np.int64),
        labels_N=np.array(labels, np.int64),
        keys=np.zeros((rows, 32), np.uint8),
    )


VALIDATION = pool("validation", [0, 1] * (NUM_VALIDATION // 2))
POOLS = {
    "train": pool("train", [0, 1] * 3 + [-1, -1]),
    "unlabelled": pool("unlabelled", [-1] * NUM_UNLABELLED),
    "validation": VALIDATION,
}


def logits(wrong: float, seed: int) -> np.ndarray:
    """Right but for a share of the rows."""
    right = VALIDATION.labels_N.copy()
    rows = np.random.default_rng(seed).permutation(NUM_VALIDATION)[: round(wrong * NUM_VALIDATION)]
    right[rows] = 1 - right[rows]
    return np.eye(2, dtype=np.float32)[right]


def scored(logits_NC: np.ndarray) -> Scores:
    return score(logits_NC, VALIDATION.labels_N, labels=LABELS, objective="f1:spam")


def stored(store: Store, array: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return store.blobs.put(buffer.getvalue())


def prepared(store: Store, folder: Path) -> str:
    kept = {}
    for name, tokens in POOLS.items():
        tokens.save(folder / name)
        soft = stored(store, logits(0.05, 9)) if name == "validation" else None
        sha256 = store.blobs.put((folder / name).read_bytes())
        kept[name] = PreparedPool(tokens=sha256, logits=soft, num_rows=len(tokens))
    historical = logits(0.15, 8)
    return Prepared(
        labels=LABELS,
        tokenizer="t" * 64,
        teacher="u" * 64,
        teacher_fingerprint="v" * 64,
        max_length=16,
        pad_id=0,
        vocab_size=10,
        num_tokens=10,
        id_table="w" * 64,
        pools=kept,
        profile=PROFILE,
        teacher_seconds=240.0,
        signals={"historical": {"validation": stored(store, historical[:, None])}},
        oov_share={"vectors/words": 0.125},
        historical=(
            HistoricalTeacher(name="slice 1/1", weight=1.0, teacher="u" * 64, scores=scored(historical)),
        ),
    ).save(store.blobs)


def trial(store: Store, study_id: int, number: int) -> None:
    student, scheme, params, wrong = TRIALS[number]
    config = TrialConfig(
        student=student,
        student_params={},
        scheme=scheme,
        scheme_params=params,
        learning_rate=1e-3,
        batch_size=32,
        epochs=6,
        seed=17,
    )
    with leases.study_turn(store.engine, study_id) as connection:
        lease = leases.insert_running(
            connection,
            study_id,
            number=number,
            optuna_trial_id=number,
            config=config,
            architecture_key=f"{number}" * 64,
            worker_id="host-1",
            ttl_s=600.0,
        )
    leases.record_latency(store.engine, lease, LATENCY)
    found = logits(wrong, number)
    result = TrialResult(
        scores=scored(found),
        best_epoch=5,
        epochs_run=6,
        rows_seen=6000,
        train_seconds=12.5,
        artifact="a" * 64,
        validation_logits=stored(store, found),
        teacher=scored(logits(0.0, 1)) if scheme.startswith("joint") else None,
        peak_memory_mb=500.0,
    )
    leases.finish_complete(store.engine, lease, result, {})


@pytest.fixture
def reported(store: Store, tmp_path: Path) -> str:
    """The URL of a database with study `films`, whose figures come from logits."""
    spec = StudySpec.model_validate(
        {
            "version": 1,
            "name": "films",
            "data": {"train": "train.csv", "validation": "validation.csv", "unlabelled": "more.csv"},
            "teacher": {"model": "teacher", "finetune": {"epochs": 3}},
            "objectives": {"quality": "f1:spam"},
        }
    )
    study = studies.create_study(
        store.engine,
        NewStudy(
            name="films",
            optuna_name="films",
            spec_text="",
            spec_json=spec_to_json(spec),
            spec_sha256="0" * 64,
            dataset_sha256="1" * 64,
            data_fingerprint="2" * 64,
            artifacts_url=store.artifacts_url,
            budget=spec.budget,
        ),
    )
    for number in range(len(TRIALS)):
        trial(store, study.id, number)
    studies.set_teacher(store.engine, study.id, scored(logits(0.05, 9)), LATENCY)
    with begin(store.engine) as connection:
        connection.execute(
            text("UPDATE kdsearch.study SET prepared = :sha"), {"sha": prepared(store, tmp_path)}
        )
    return store.url


@pytest.fixture
def rows(kdsearch: Run, store: Store, reported: str) -> list[dict[str, Any]]:
    answer = kdsearch(
        "study", "report", "films", "--format", "json", "--artifacts", store.artifacts_url, storage=reported
    )
    data = answer.data("report")
    assert (data["study"], data["quality"]) == ("films", "f1:spam")
    return data["rows"]


def test_the_best_of_each_student_and_scheme_after_the_teachers(rows: list[dict[str, Any]]) -> None:
    shown = [(row["model"], row["procedure"], row["trial"], row["tried"]) for row in rows]
    assert shown == [
        ("teacher", "fine-tuned, epochs: 3", None, None),
        ("historical teacher", "slice 1/1, weight 1", None, None),
        ("textcnn", "labels alone", 0, 2),
        ("textcnn", "joint_mutual", 3, 1),
        ("textcnn", "offline", 2, 1),
        ("bag", "offline", 4, 1),
    ]


def test_what_each_was_trained_on(rows: list[dict[str, Any]]) -> None:
    teacher, _, control, prokt, both, soft = rows
    assert [(row["labelled"], row["soft_labelled"]) for row in (control, prokt, both, soft)] == [
        (6, 0),
        (0, NUM_TRAIN),  # no lambda: the soft term alone
        (6, NUM_TRAIN + NUM_UNLABELLED),
        (0, NUM_TRAIN),  # lambda 1
    ]
    assert (teacher["labelled"], teacher["rows_seen"], teacher["train_seconds"]) == (6, 18, 240.0)
    assert control["samples_per_s"] == 400.0
    assert prokt["teacher"]["quality"] == 1.0 and control["teacher"] is None


def test_gains_are_paired_with_the_best_control_of_the_same_student(rows: list[dict[str, Any]]) -> None:
    control, prokt, both, soft = rows[2:]
    expected = paired_bootstrap(
        logits(0.1, 2), logits(0.2, 0), VALIDATION.labels_N, labels=LABELS, objective="f1:spam", seed=17
    )
    assert both["gain"] == pytest.approx(list(expected))
    assert prokt["gain"][0] == pytest.approx(prokt["scores"]["quality"] - control["scores"]["quality"])
    assert control["gain"] is None and soft["gain"] is None  # bag has no control
    for row in rows:
        low, high = row["interval"]
        assert low <= row["scores"]["quality"] <= high


def test_csv_and_markdown_say_the_same(
    kdsearch: Run, store: Store, reported: str, rows: list[dict[str, Any]]
) -> None:
    places = ("--artifacts", store.artifacts_url)
    out = kdsearch("study", "report", "films", "--format", "csv", *places, storage=reported).out
    table = list(csv.DictReader(io.StringIO(out)))
    assert [float(line["quality"]) for line in table] == [row["scores"]["quality"] for row in rows]
    assert [float(line["recall spam"]) for line in table] == [row["scores"]["recall"]["spam"] for row in rows]
    markdown = kdsearch("study", "report", "films", "--format", "md", *places, storage=reported).out
    lines = [line.split("|")[1:-1] for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == len(rows) + 2
    assert {len(line) for line in lines} == {len(lines[0])}
    assert f" {100 * rows[4]['scores']['quality']:.1f} (" in markdown


def test_for_people_and_quiet(kdsearch: Run, store: Store, reported: str) -> None:
    places = ("--artifacts", store.artifacts_url)
    shown = kdsearch("study", "report", "films", *places, storage=reported).out
    assert "gain, points" in shown and "historical teacher" in shown and "12.5 s" in shown
    assert "test %" not in shown  # nobody has read it
    assert kdsearch("study", "report", "films", "-q", *places, storage=reported).out == "0\n3\n2\n4\n"


def test_study_show_tells_what_there_is_to_learn_from(kdsearch: Run, store: Store, reported: str) -> None:
    places = ("--artifacts", store.artifacts_url)
    shown = kdsearch("study", "show", "films", *places, storage=reported).out
    assert "vectors: vectors/words has none for 12.5% of the running tokens" in shown
    assert "historical teacher: slice 1/1, f1:spam 0.8" in shown
    data = kdsearch("study", "show", "films", "--json", *places, storage=reported).data("study")
    assert data["oov_share"] == {"vectors/words": 0.125}
    assert [teacher["teacher"] for teacher in data["historical"]] == ["slice 1/1"]


def test_a_study_without_a_teacher_yet_is_a_conflict(kdsearch: Run, store: Store, fresh: str) -> None:
    error = kdsearch("study", "report", fresh, "--json", storage=store.url).error(4)
    assert "kdsearch study show fresh" in error["hint"]


SMALL = """\
version: 1
name: small
data:
  train: synthetic://spam_opinions?rows=120&seed=1
  validation: synthetic://spam_opinions?rows=60&seed=2
  test: synthetic://spam_opinions?rows=70&seed=3
teacher:
  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 400}
  max_length: 24
  finetune: {epochs: 1, learning_rate: 1e-3, anchors: 1}
students:
  - {type: bag, embed_dim: 8, hidden: 8}
training: {epochs: 1, batch_size: 32, seed: 5}
latency: {warmup: 2, min_queries: 10, min_seconds: 0}
budget: {trials: 3, failed: 0}
"""


def test_the_test_pool_is_read_once_for_each_trial_shown(kdsearch: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    places = ("--artifacts", store.artifacts_url, "--json")
    assert kdsearch("run", "small.yaml", *places, storage=store.url).data("run")["state"] == "done"
    before = kdsearch("study", "report", "small", *places, storage=store.url).data("report")["rows"]
    assert [row["test"] for row in before] == [None] * 3
    study = studies.find_study(store.engine, "small")
    assert readings.count(store.engine, study.id) == 0
    answers = [
        kdsearch("study", "report", "small", "--test", *places, storage=store.url).data("report")["rows"]
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert readings.count(store.engine, study.id) == 2  # of three trials the best control and the best other
    for row in answers[0]:
        low, high = row["test"]["interval"]
        assert low <= row["test"]["quality"] <= high


# ---------------------------------------------------------------- compare


def test_trials_are_compared_pairwise_on_the_same_rows(inside: Run, store: Store, reported: str) -> None:
    places = ("--artifacts", store.artifacts_url)
    answer = inside("trial", "compare", "films", "0", "1", "2", *places, "--json", storage=reported)
    data = answer.data("compare")
    assert [trial["trial"] for trial in data["trials"]] == [0, 1, 2]
    assert data["differing"]["scheme"] == ["none", "none", "offline"]
    assert data["differing"]["offline.lambda"] == [None, None, 0.5]
    assert "student" not in data["differing"]  # all of them are textcnn
    first, worse, better = data["compared"]
    assert first["gain"] is None and first["verdict"] is None
    expected = paired_bootstrap(
        logits(0.4, 1), logits(0.2, 0), VALIDATION.labels_N, labels=LABELS, objective="f1:spam", seed=17
    )
    assert worse["gain"] == pytest.approx(list(expected), abs=0.02)
    assert (worse["gain"][0] < 0, worse["verdict"]) == (True, "worse")
    assert better["gain"][0] > 0
    # of 60 rows 12 and 24 are wrong
    assert worse["first_alone"] - worse["right_alone"] == 12


def test_a_comparison_for_people(inside: Run, store: Store, reported: str) -> None:
    places = ("--artifacts", store.artifacts_url)
    answer = inside("trial", "compare", "films", "0", "2", *places, storage=reported)
    assert answer.code == 0, answer.err
    for row in ("scheme", "f1:spam", "recall ham", "p90 ms", "difference", "its 95 %", "verdict"):
        assert any(line.startswith(row) for line in answer.out.splitlines()), row
    assert "f1:spam: trial 2 is " in answer.err
    assert inside("trial", "compare", "films", "0", "2", "-q", *places, storage=reported).out == "0\n2\n"


def test_without_logits_there_is_no_paired_difference_but_figures(inside: Run, filled: str) -> None:
    answer = inside("trial", "compare", "opinions", "0", "1", storage=filled)
    assert answer.code == 0, answer.err
    assert "no paired difference" in answer.err
    assert "verdict" not in answer.out
    failed = inside("trial", "compare", "opinions", "0", "5", storage=filled)
    assert "fewer than two of them have validation logits" in failed.err


def test_what_cannot_be_compared(inside: Run, filled: str) -> None:
    for numbers in (("1",), ("1", "1"), ("0", "1", "2", "3", "4")):
        error = inside("trial", "compare", "opinions", *numbers, "--json", storage=filled).error(2)
        assert "two to 4 different trials" in error["message"]
    assert inside("trial", "compare", "opinions", "0", "77", "--json", storage=filled).error(3)
