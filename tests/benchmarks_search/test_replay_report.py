"""Methods, figures and the report of replays: tabular honesty, statistics, going on where it was cut off."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import NSGAIISampler, RandomSampler
from optuna.trial import TrialState

from benchmarks.search import comparisons, forecasts
from benchmarks.search.askers import OptunaAsker, Stratified
from benchmarks.search.knowing import Confined, KnowingAsker
from benchmarks.search.methods import BASELINE, METHODS, asker_of, latencies, replay, truth_of
from benchmarks.search.plots import regret_plot
from benchmarks.search.regret import Line
from benchmarks.search.replay import main
from benchmarks.search.simulator import Setting, Simulator
from benchmarks.search.snapping import Snapper, cell
from benchmarks.search.synthetic import synthetic
from benchmarks.search.table import Table, load
from benchmarks.search.truth import Truth, floor_of, shuffled
from kdsearch.core.spec import RungsSpec
from kdsearch.search.drawing import SAMPLER_DRAWS, by_chance
from kdsearch.search.known import Known
from kdsearch.search.proposing import NUM_STARTUP_TRIALS
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.pruners.base import Ladder
from kdsearch.search.surrogate import gaussian_process

COUNT = 30


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """From a file, as tables are: parameters come in another order than a plan suggests them in."""
    path = tmp_path_factory.mktemp("table") / "made.json.gz"
    synthetic(COUNT, seed=4).save(path)
    return load(path)


@pytest.fixture(scope="module")
def truth(table: Table) -> Truth:
    return Truth(table, floor_of(table))


@pytest.fixture(scope="module")
def snapper(table: Table) -> Snapper:
    return Snapper(table.configs, table.plan)


def setting(truth: Truth, *, trainings: int = 14, seed: int = 5, workers: int = 2) -> Setting:
    epochs = truth.table.num_epochs
    ladder = Ladder.of(RungsSpec(), epochs=epochs)
    return Setting(truth=truth, workers=workers, budget_epochs=trainings * epochs, ladder=ladder, seed=seed)


def line(method: str = "tpe", seed: int = 0, shares: tuple[float, ...] = (0.5, 0.9)) -> Line:
    return Line(
        method=method,
        workers=1,
        seed=seed,
        budget_epochs=40,
        epochs_per_training=10,
        epochs_T=tuple(10 * (i + 1) for i in range(len(shares))),
        share_T=shares,
        handed_over=shares[-1],
        num_trials=4,
        num_failed=0,
        num_promoted=0,
        num_stopped=0,
        wrong_stops=0,
        lost=0.0,
        epochs=40,
        simulated_s=1.0,
        took_s=1.0,
    )


# ---------------------------------------------------------------- only rows of the table


def test_a_row_of_the_table_is_nearest_to_itself(snapper: Snapper) -> None:
    everything = range(COUNT)
    assert [snapper.nearest(config, everything) for config in snapper.configs] == list(everything)


def test_what_is_snapped_keeps_its_student_and_scheme_while_it_can(snapper: Snapper) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        config = by_chance(snapper.plan, rng)
        near = snapper.configs[snapper.nearest(config, range(COUNT))]
        same = [c for c in snapper.configs if (c.student, c.scheme) == (config.student, config.scheme)]
        assert not same or near in same
        assert near.student == config.student
    other = next(row for row, c in enumerate(snapper.configs) if c.student != config.student)
    assert snapper.nearest(config, [other]) == other


def test_a_small_step_is_snapped_back(snapper: Snapper) -> None:
    for row, config in enumerate(snapper.configs):
        moved = replace(config, learning_rate=min(config.learning_rate * 1.001, 3e-2))
        assert snapper.nearest(moved, range(COUNT)) == row


def test_what_is_snapped_keeps_its_architecture_while_it_can(snapper: Snapper) -> None:
    rng, kept = np.random.default_rng(1), 0
    for _ in range(200):
        config = by_chance(snapper.plan, rng)
        row = snapper.nearest(config, range(COUNT))
        assert (snapper.cells[row] == cell(config)) is (cell(config) in snapper.left(range(COUNT)))
        kept += snapper.cells[row] == cell(config)
    assert 0 < kept < 200


def test_a_sampler_is_asked_again_where_the_table_has_no_such_row_left(snapper: Snapper) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=RandomSampler(seed=7))
    said = [snapper.plan.suggest(study.ask()) for _ in range(20)]
    third = next(i for i in range(2, 20) if cell(said[i]) in snapper.cells)
    vain = {cell(config) for config in said[:third]}
    untried = [row for row in range(COUNT) if snapper.cells[row] not in vain]
    assert snapper.left(untried) == set(snapper.cells) - vain
    asker = OptunaAsker(RandomSampler(seed=7), snapper)
    row = asker.ask(0, Known(), untried)
    asked = min(third, SAMPLER_DRAWS - 1)
    assert row == snapper.nearest(said[asked], untried)
    states = [trial.state for trial in asker.study.get_trials(deepcopy=False)]
    assert states == [TrialState.FAIL] * (asked + 1) + [TrialState.RUNNING]


def test_known_latency_proposes_only_what_the_table_has_left(truth: Truth, snapper: Snapper) -> None:
    asked: list[bool] = []

    class Watched(KnowingAsker):
        def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
            outlook = Confined(known, snapper, untried, self.make_model)
            if outlook.num_observed >= NUM_STARTUP_TRIALS:
                every = [by_chance(snapper.plan, np.random.default_rng([number, i])) for i in range(40)]
                there = [cell(config) in snapper.left(untried) for config in every]
                assert [score > -np.inf for score in outlook.scores(every)] == there
                asked.extend(there)
            return super().ask(number, known, untried)

    fallback = OptunaAsker(RandomSampler(seed=1), snapper)
    asker = Watched(fallback, 1, snapped=True, make_model=gaussian_process)
    simulator = Simulator(
        setting(truth, trainings=18), asker, PRUNERS["none"](), truth.table.p90_ms_C.tolist()
    )
    simulator.run(lambda running: lambda config: None)
    assert {True, False} == set(asked)


def test_optuna_is_told_the_parameters_of_the_row(truth: Truth, snapper: Snapper) -> None:
    asker = OptunaAsker(NSGAIISampler(seed=1, population_size=4), snapper)
    simulator = Simulator(setting(truth), asker, PRUNERS["mo_asha"](), truth.table.p90_ms_C.tolist())
    simulator.run(lambda running: lambda config: None)
    trials = asker.study.get_trials(deepcopy=False)
    for play in simulator.plays:
        trial = trials[asker.numbers[play.tried.number]]
        assert trial.params == snapper.rows[play.row].params
        if play.tried.state == "complete":
            assert trial.values == [play.tried.quality, play.tried.latency_ms]
        else:
            assert trial.state == {"failed": TrialState.FAIL, "stopped": TrialState.PRUNED}[play.tried.state]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == sum(play.tried.state == "complete" for play in simulator.plays)
    generations = {value for t in complete for key, value in t.system_attrs.items() if "generation" in key}
    assert max(generations) >= 1, "NSGA-II breeds"


def test_the_first_trials_of_a_study_are_one_per_scheme_and_student(snapper: Snapper) -> None:
    asker = asker_of(METHODS["known_latency_first"], snapper, 3)
    assert isinstance(asker, Stratified)
    untried, wanted, got = list(range(COUNT)), [], []
    for number, (scheme, student) in enumerate(
        (scheme, student) for scheme in snapper.plan.schemes for student in snapper.plan.students
    ):
        row = asker.ask(number, Known(), untried)
        wanted.append((student, scheme))
        untried.remove(row)
        got.append((snapper.configs[row].student, snapper.configs[row].scheme))
    had = {(c.student, c.scheme) for c in snapper.configs}
    assert [g for g, w in zip(got, wanted, strict=True) if w in had] == [w for w in wanted if w in had]


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"gp", "known_latency_forest"}))
def test_every_method_spends_its_budget_on_rows_of_the_table(
    truth: Truth, snapper: Snapper, name: str
) -> None:
    own = setting(truth_of(METHODS[name], truth, 5))
    story = replay(METHODS[name], own, snapper)
    assert own.budget_epochs - truth.table.num_epochs < story.epochs <= own.budget_epochs or (
        story.num_trials == COUNT
    )
    assert {one.row for one in story.ended} <= set(truth.rows)


# ---------------------------------------------------------------- what is known, and controls


def test_latencies_are_known_as_in_a_study_beforehand_or_wrongly(truth: Truth, snapper: Snapper) -> None:
    told = [one.p90_ms for one in truth.table.architectures]
    asker = OptunaAsker(NSGAIISampler(seed=1), snapper)
    simulator = Simulator(setting(truth), asker, PRUNERS["none"](), truth.table.p90_ms_C.tolist())
    measured, exact = latencies("measured", simulator, told), latencies("exact", simulator, told)
    assert {measured(config) for config in snapper.configs} == {None}
    simulator.run(lambda running: measured)
    tried = {truth.table.architecture_C[play.row] for play in simulator.plays}
    assert 0 < len(tried) < len(told)
    for row, config in enumerate(snapper.configs):
        place = truth.table.architecture_C[row]
        assert exact(config) == told[place]
        assert measured(config) == (told[place] if place in tried else None)
        turned = replace(config, student_params=dict(reversed(config.student_params.items())))
        assert exact(turned) == told[place], "in whichever order its parameters come"


def test_shuffling_moves_whole_trainings_and_leaves_latencies(truth: Truth) -> None:
    own = Truth(shuffled(truth.table, np.random.default_rng(1)), truth.floor)
    assert sorted(own.worth_C) == sorted(truth.worth_C)
    assert list(own.worth_C) != list(truth.worth_C)
    assert list(own.log_ms_C) == list(truth.log_ms_C)
    for row in own.rows:
        assert own.share([row]) <= 1.0
    assert own.share(own.rows) == 1.0


def test_a_training_that_broke_off_is_worth_the_floor(truth: Truth) -> None:
    seconds = truth.table.cpu_seconds_CSE.copy()
    seconds[0, :, -1] = np.nan
    table = replace(truth.table, seconds_CSE=seconds, cpu_seconds_CSE=seconds)
    own = Truth(table, 0.5)
    assert own.worth_C[0] == 0.5
    assert not own.adds(0, [])
    assert own.share([0]) == 0.0


# ---------------------------------------------------------------- statistics


def test_a_median_lies_in_its_interval_and_may_be_never() -> None:
    found = comparisons.median([3.0, 1.0, 2.0, 10.0, 2.5])
    assert found.low <= found.value == 2.5 <= found.high
    assert comparisons.median([1.0, 2.0]).value == 1.5
    assert comparisons.median([1.0, math.inf, math.inf]).value == math.inf
    assert comparisons.median([1.0] * 9 + [math.inf]) == (1.0, 1.0, 1.0)
    assert comparisons.median([4.0] * 5) == (4.0, 4.0, 4.0)


def test_holm_is_between_nothing_and_bonferroni() -> None:
    ps = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9}
    assert comparisons.holm(ps) == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})
    assert comparisons.holm({"a": 0.02}) == {"a": 0.02}


def test_lower_figures_win() -> None:
    better = comparisons.versus([0.1, 0.2, 0.3] * 5, [0.2, 0.3, 0.3] * 5)
    assert (better.wins, better.ties, better.losses) == (10, 5, 0)
    assert better.p < 0.05
    assert better.cliff > 0
    worse = comparisons.versus([0.2, 0.3, 0.3] * 5, [0.1, 0.2, 0.3] * 5)
    assert (worse.wins, worse.losses, worse.p, worse.cliff) == (0, 10, better.p, -better.cliff)
    assert comparisons.versus([0.1] * 5, [0.1] * 5) == (0, 5, 0, 1.0, 0.0)


def test_training_needed_is_paired_by_seed() -> None:
    own = [line("x", 0, (0.8, 0.95)), line("x", 1, (0.5, 0.6)), line("x", 7)]
    baseline = [line("tpe", 1, (0.1, 0.5)), line("tpe", 0, (0.3, 0.7, 0.9))]
    assert comparisons.training_needed(own, baseline) == [0.5, 0.25]
    assert comparisons.training_needed([line("x", 0, (0.1,))], baseline) == [math.inf]
    assert comparisons.training_needed(baseline, baseline) == [0.75, 0.5]


# ---------------------------------------------------------------- the command


def test_the_command_reports_and_goes_on_where_it_was_cut_off(tmp_path: Path, table: Table) -> None:
    file, out, journal = tmp_path / "made.json.gz", tmp_path / "search.md", tmp_path / "journal"
    table.save(file)
    given = ["--table", str(file), "--journal", str(journal), "--out", str(out), "--trainings", "5"]
    some = ["--workers", "1", "2", "--methods", "random", BASELINE, "mo_asha", "--seeds-of", "mo_asha=1"]
    main([*given, *some, "--seeds", "1"])
    (kept,) = journal.iterdir()
    before = kept.read_text().splitlines()
    assert len(before) == 6
    kept.write_text("\n".join(before[:-1]) + "\n" + before[-1][:20])  # killed while it wrote the last line
    main([*given, *some, "--seeds", "2"])
    after = kept.read_text().splitlines()
    assert after[:5] == before[:5]
    lines = [json.loads(text) for text in after if text.endswith("}")]
    again = next(one for one in lines[5:] if (one["method"], one["workers"], one["seed"]) == key(before[5]))
    assert {**again, "took_s": 0} == {**json.loads(before[5]), "took_s": 0}
    assert len(lines) == 10
    assert load(file).data in out.read_text()
    pictures = sorted(path.name for path in (tmp_path / "search").iterdir())
    assert pictures == ["regret-synthetic-1.svg", "regret-synthetic-2.svg"]
    assert all(f"search/{name}" in out.read_text() for name in pictures)


def test_fewer_replays_of_a_method_of_a_role_or_at_a_number_of_workers(table: Table, tmp_path: Path) -> None:
    file = tmp_path / "made.json.gz"
    table.save(file)
    given = ["--table", str(file), "--journal", str(tmp_path / "journal"), "--out", str(tmp_path / "out.md")]
    methods = ["--methods", BASELINE, "random", "known_latency_promotion", "tpe_promotion"]
    fewer = ["--seeds-of", "random=1", "random@2=0", "ablation@1=0"]
    main([*given, *methods, *fewer, "--trainings", "5", "--workers", "1", "2", "--seeds", "2"])
    (kept,) = (tmp_path / "journal").iterdir()
    played = Counter(key(text)[:2] for text in kept.read_text().splitlines())
    both = {(name, 2): 2 for name in ("known_latency_promotion", "tpe_promotion")}
    assert played == {(BASELINE, 1): 2, (BASELINE, 2): 2, ("random", 1): 1, **both}
    text = (tmp_path / "out.md").read_text()
    assert "| `synthetic` | 2 | `known_latency_promotion` | `tpe_promotion` |" in text
    assert "| `synthetic` | 1 | `known_latency_promotion` |" not in text


def key(text: str) -> tuple[str, int, int]:
    found = json.loads(text)
    return found["method"], found["workers"], found["seed"]


def test_forecasts_are_held_against_the_ends_that_were_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all end alike, whatever they were early, the regression says so; a mean gain cannot."""
    table = synthetic(90, seed=4)
    flat = np.where(np.isnan(table.quality_CSE), np.nan, 0.75)
    flat[:, :, :3] = np.random.default_rng(0).uniform(0.5, 0.7, flat[:, :, :3].shape)
    replace(table, quality_CSE=flat).save(tmp_path / "made.json.gz")
    forecasts.main(["--table", str(tmp_path / "made.json.gz"), "--trainings", "40", "--seeds", "1"])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert {line[1] for line in lines} <= {"1", "3"}
    ours = [line for line in lines if line[2].startswith("as")]
    assert ours
    assert all(line[4:6] in (["+0.0", "0.0"], ["-0.0", "0.0"]) for line in ours)
    others = [float(line[5]) for line in lines if line[2].startswith("by")]
    assert min(others) > 0.5, "gains differ where all end alike"


def test_a_plot_is_a_picture_with_every_method() -> None:
    names = {"<ours>": [line(seed=0), line(seed=1, shares=(0.2, 1.0))], "tpe": [line()]}
    root = ET.fromstring(regret_plot("regret & rows", names))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<ours>", "tpe", "regret & rows"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
