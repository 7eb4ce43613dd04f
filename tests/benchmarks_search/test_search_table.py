"""The table of the search benchmark: a nested design, journals that survive, tables that come back equal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.arms import Spec, load_spec, write_study
from benchmarks.search import design, earlier, train
from benchmarks.search.assemble import TEACHER, assemble, newest
from benchmarks.search.design import configurations
from benchmarks.search.ground import Ground
from benchmarks.search.journal import Journal, records
from benchmarks.search.table import CURVES, Architecture, Table, Teacher, load
from kdsearch.core.errors import ConflictError
from kdsearch.core.facts import Facts
from kdsearch.core.records import HardwareProfile, TrialConfig
from kdsearch.core.spec import StudySpec
from kdsearch.core.studyfile import spec_to_json
from kdsearch.search import check
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import registered
from kdsearch.store.connect import Store
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.loop import work

FACTS = Facts(
    num_labels=2,
    pools=("train", "augmented"),
    epochs=9,
    anchors=3,
    num_historical=0,
    teacher_width=384,
    teacher_layers=6,
    bert_teacher=True,
    vector_width=None,
    encoder_layers=None,
)
PROFILE = HardwareProfile(
    device_model="cpu", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
)
SYNTHETIC = "synthetic://spam_opinions?rows={rows}&seed={seed}"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = write_study(load_spec(design.STUDY), tmp_path_factory.mktemp("study") / "table.yaml")
    spec: StudySpec = check.load(path, {"KDSEARCH_DATA": "/data", "KDSEARCH_TEACHER": "/teacher"}).spec
    return Plan(spec, registered(FACTS))


# ---------------------------------------------------------------- the design


def test_a_larger_design_begins_with_the_smaller_one(plan: Plan) -> None:
    many = configurations(plan, 40)
    assert configurations(plan, 15) == many[:15]
    assert len({config.key for config in many}) == 40


def test_the_seed_decides_the_design(plan: Plan) -> None:
    assert configurations(plan, 5, seed=1) == configurations(plan, 5, seed=1)
    assert configurations(plan, 5, seed=1) != configurations(plan, 5, seed=2)


def test_every_student_scheme_and_end_of_a_range_is_drawn(plan: Plan) -> None:
    drawn = configurations(plan, 300)
    pairs = {(config.student, config.scheme) for config in drawn}
    assert pairs == {(student, scheme) for student in plan.students for scheme in plan.schemes}
    rates = np.log([config.learning_rate for config in drawn])
    low, high = np.log([1e-4, 3e-2])
    assert low <= rates.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < rates.max() <= high
    assert abs(np.mean(rates) - (low + high) / 2) < 0.1 * (high - low)  # evenly on its scale


def test_figures_of_latency_are_shared(plan: Plan) -> None:
    names = {design.architecture_name(config) for config in configurations(plan, 300)}
    assert 20 <= len(names) <= 40


@pytest.mark.parametrize("step", [None, 0.25])
@pytest.mark.parametrize("log", [False, True])
def test_a_draw_stays_within_its_range(step: float | None, log: bool) -> None:
    draw = design.Draw(np.random.default_rng(0))
    found = [draw.suggest_float("x", 0.5, 2.0, step=step, log=log) for _ in range(200)]
    assert min(found) >= 0.5
    assert max(found) <= 2.0
    if step is not None:
        assert set(found) == {0.5 + step * i for i in range(7)}


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_reach_both_ends(log: bool) -> None:
    draw = design.Draw(np.random.default_rng(0))
    found = {draw.suggest_int("x", 1, 4, step=1, log=log) for _ in range(200)}
    assert found == {1, 2, 3, 4}


def test_both_data_sets_have_one_space() -> None:
    specs = [design.study_of(load_spec(design.STUDY), data) for data in design.DATA]
    assert [spec["name"] for spec in specs] == ["search-table-sst2", "search-table-yelp"]
    for key in ("students", "schemes", "training", "teacher", "latency"):
        assert specs[0][key] == specs[1][key]
    assert specs[0]["data"] != specs[1]["data"]


# ---------------------------------------------------------------- journals


def test_half_a_line_is_not_read_and_not_written_upon(tmp_path: Path) -> None:
    path = tmp_path / "runs-0.jsonl"
    with Journal.opened(path) as journal:
        journal.add({"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": 2, "epo')
    with Journal.opened(path) as journal:
        journal.add({"a": 3})
    assert list(records(tmp_path, "runs-*.jsonl")) == [{"a": 1}, {"a": 3}]


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    with Journal.opened(tmp_path / "j"), pytest.raises(ConflictError), Journal.opened(tmp_path / "j"):
        pass


# ---------------------------------------------------------------- tables


def a_table(plan: Plan) -> Table:
    configs = configurations(plan, 3)
    rng = np.random.default_rng(0)
    curves = {name: np.round(rng.uniform(0.1, 1, (3, 2, 4)), 5) for name in CURVES}
    curves["quality_CSE"][0, :, :2] = np.nan
    curves["seconds_CSE"][1, 1, 3] = np.nan
    return Table(
        data="sst2",
        spec=spec_to_json(plan.spec),
        facts=FACTS.to_json(),
        numbers_C=(0, 1, 2),
        configs=configs,
        seeds=(17, 18),
        rows_per_epoch=2000,
        **curves,
        architecture_C=(0, 1, 0),
        architectures=(
            Architecture(key="a", name="bag", p50_ms=0.1, p90_ms=0.2, size_mb=1.5, num_params=10),
            Architecture(key="b", name="bilstm"),
        ),
        teacher=Teacher(quality=0.9, nll=0.3, p90_ms=5.0),
        profile=PROFILE,
    )


def test_a_table_comes_back_equal(plan: Plan, tmp_path: Path) -> None:
    table = a_table(plan)
    table.save(tmp_path / "sub" / "one.json.gz")
    back = load(tmp_path / "sub" / "one.json.gz")
    for field in fields(Table):
        if field.name not in CURVES and field.name not in ("spec", "facts"):
            np.testing.assert_equal(getattr(back, field.name), getattr(table, field.name))
    for name in CURVES:
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))
    back.save(tmp_path / "two.json.gz")
    assert (tmp_path / "two.json.gz").read_bytes() == (tmp_path / "sub" / "one.json.gz").read_bytes()
    assert configurations(back.plan, 3) == table.configs  # the space came along


def test_a_table_answers_in_configurations(plan: Plan) -> None:
    table = a_table(plan)
    np.testing.assert_array_equal(table.p90_ms_C, [0.2, np.nan, 0.2])
    best = table.best_quality_CSE
    assert np.isnan(best[0, :, :2]).all()
    assert (np.diff(best[1:], axis=2) >= 0).all()
    np.testing.assert_array_equal(best[1:, :, -1], table.quality_CSE[1:].max(axis=2))
    np.testing.assert_array_equal(table.diverged_CS, [[False, False], [False, True], [False, False]])


def figure(data: str, taken: str, p90_ms: float) -> dict[str, Any]:
    latency = {"p50_ms": 1.0, "p90_ms": p90_ms, "size_mb": 2.0, "num_params": 3, "noisy": False}
    return {"data": data, "architecture": "a", "taken": taken, "latency": latency}


def test_the_calmest_round_of_the_last_time_counts() -> None:
    taken = [
        figure("sst2", "2026-01-01", 1.0),
        figure("sst2", "2026-01-02", 5.0),
        figure("sst2", "2026-01-02", 4.0),
        figure("yelp", "2026-01-03", 9.0),
    ]
    for order in (taken, taken[::-1]):
        assert newest(order, "sst2")["a"]["p90_ms"] == 4.0


# ---------------------------------------------------------------- from the study to the table


def synthetic() -> Spec:
    spec = design.shrunk_study(load_spec(design.STUDY))
    spec["name"] = "tiny-table"
    spec["data"] |= {
        "train": SYNTHETIC.format(rows=96, seed=1),
        "validation": SYNTHETIC.format(rows=48, seed=2),
        "labels": ["genuine", "spam"],
    }
    spec["teacher"]["build"] = {"layers": 2, "hidden": 16, "heads": 2, "vocab_size": 400}
    spec["training"] |= {"epochs": 2, "rows_per_epoch": 96}
    spec["latency"] = {"warmup": 2, "min_queries": 10, "min_seconds": 0}
    return spec


@pytest.fixture
def ground(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.setenv("KDSEARCH_LOCKS", str(tmp_path / "locks"))
    (tmp_path / "locks").mkdir()
    file = check.load(write_study(synthetic(), tmp_path / "tiny.yaml"), dict(os.environ))
    record = create_or_resume(store, file, on_progress=lambda _: None)
    options = WorkerOptions(lock_folder=tmp_path / "locks", poll_s=0.05)
    assert work(store, record.name, options=options, should_stop=lambda: False) == "done"
    yield Ground.open(store, "tiny", record.name)


def of_each_scheme(plan: Plan) -> list[TrialConfig]:
    found: dict[str, TrialConfig] = {}
    for config in configurations(plan, 60):
        found.setdefault(config.scheme, config)
    return [found[scheme] for scheme in ("none", "hint")]


def test_from_a_study_to_its_table(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs, path = of_each_scheme(ground.plan), tmp_path / "runs-0.jsonl"
    seeds = (17, 18)
    todo = list(train.units([ground], configs, seeds))
    assert [(unit.number, unit.config.seed) for unit in todo] == [(0, 17), (0, 18), (1, 17), (1, 18)]

    train.train_all(todo[:3], path)
    half = assemble(ground, configs, seeds, records(tmp_path, "runs-*.jsonl"), [])
    assert half.numbers_C == (0,)  # of the second one a seed is missing
    assert np.isnan(half.p90_ms_C).all()

    before = path.read_bytes()
    path.write_bytes(before[:-20])  # killed while it wrote
    capsys.readouterr()
    train.train_all(todo, path)
    assert "2 of 4 trainings are there" in capsys.readouterr().err
    train.measure_all([ground], configs, tmp_path / "latencies.jsonl", rounds=1, again=False)
    runs, figures = list(records(tmp_path, "runs-*.jsonl")), list(records(tmp_path, "latencies.jsonl"))
    assert {f["architecture"] for f in figures} >= {TEACHER}

    table = assemble(ground, configs, seeds, runs, figures)
    again = json.loads(before.splitlines()[2])  # the one that was lost
    (now,) = (run for run in runs if run["key"] == again["key"])
    assert [e[:2] for e in now["epochs"]] == [e[:2] for e in again["epochs"]]
    assert table.numbers_C == (0, 1)
    assert table.quality_CSE.shape == (2, 2, 2)
    np.testing.assert_array_equal(np.isnan(table.quality_CSE[:, 0]), [[False, False], [True, False]])
    assert (table.cpu_seconds_CSE > 0).all()
    assert (table.p90_ms_C > 0).all()
    assert table.teacher.p90_ms > 0
    table.save(tmp_path / "tiny.json.gz")
    assert load(tmp_path / "tiny.json.gz").configs == table.configs

    train.measure_all([ground], configs, tmp_path / "latencies.jsonl", rounds=1, again=False)
    assert len(list(records(tmp_path, "latencies.jsonl"))) == len(figures)  # every figure is there


def test_a_training_that_diverges_is_on_record(ground: Ground) -> None:
    config = next(c for c in configurations(ground.plan, 60) if c.scheme == "none")
    wild = replace(config, learning_rate=1e30)
    run = ground.train(wild)
    assert "diverged" in run["problem"]
    record = {"number": 0, **run}
    table = assemble(ground, [wild], [wild.seed], [record], [])
    assert table.diverged_CS.all()
    assert np.isnan(table.quality_CSE[..., -1]).all()


def test_what_a_table_has_is_not_trained_again(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = next(c for c in configurations(ground.plan, 60) if c.scheme == "none")
    run = {"number": 0, **ground.train(config)}
    train.measure_all([ground], [config], tmp_path / "latencies.jsonl", rounds=1, again=False)
    figures = list(records(tmp_path, "latencies.jsonl"))
    assert earlier.earlier(ground, tmp_path / "tables") is None
    table = assemble(ground, [config], [config.seed], [run], figures)
    path = tmp_path / "tables" / f"{ground.data}.json.gz"
    table.save(path)

    found = earlier.earlier(ground, path.parent)
    assert found is not None
    capsys.readouterr()
    train.train_all(list(train.units([ground], [config], [config.seed])), tmp_path / "runs-0.jsonl", [found])
    assert "1 of 1 trainings are there" in capsys.readouterr().err
    again = tmp_path / "tables" / "again.json.gz"
    assemble(ground, [config], [config.seed], earlier.runs(found), earlier.latencies(found)).save(again)
    assert again.read_bytes() == path.read_bytes()

    replace(table, teacher=replace(table.teacher, quality=0.1)).save(path)
    with pytest.raises(ConflictError, match="trained from a teacher"):
        earlier.earlier(ground, path.parent)
