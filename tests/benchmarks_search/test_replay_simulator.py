"""The event simulator of replays: what it counts, the order of events, and that chance is seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from optuna.samplers import RandomSampler

from benchmarks.search.askers import OptunaAsker, Stratified
from benchmarks.search.regret import Line, line_of
from benchmarks.search.simulator import Clock, Ended, Setting, Simulator, Story
from benchmarks.search.snapping import Snapper
from benchmarks.search.synthetic import synthetic
from benchmarks.search.table import Table
from benchmarks.search.truth import Truth, floor_of
from kdsearch.core.records import Decision, Tried
from kdsearch.core.spec import RungsSpec
from kdsearch.search.known import Known
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.pruners.base import Ladder, Pruner, Situation

COUNT = 40


@pytest.fixture(scope="module")
def table() -> Table:
    return synthetic(COUNT, seed=3)


@pytest.fixture(scope="module")
def truth(table: Table) -> Truth:
    return Truth(table, floor_of(table))


@pytest.fixture(scope="module")
def snapper(table: Table) -> Snapper:
    return Snapper(table.configs, table.plan)


@dataclass
class Given:
    """Rows in an order of its own; notes what it saw and was told."""

    seed: int = 0
    running: list[int] = field(default_factory=list)
    told: dict[int, Tried] = field(default_factory=dict)

    def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
        assert len(known.tried) == number
        self.running.append(sum(tried.state == "running" for tried in known.tried))
        return untried[int(np.random.default_rng([self.seed, number]).integers(len(untried)))]

    def tell(self, trial: Tried) -> None:
        assert trial.number not in self.told
        self.told[trial.number] = trial


class Oracle:
    """Pauses at the first rung exactly what will never be on the front of what was found already."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.rows = {config.key: row for row, config in enumerate(truth.table.configs)}

    def judge(self, trial: Tried, situation: Situation) -> Decision:
        found = [self.rows[t.config.key] for t in situation.tried if t.state == "complete"]
        hopeless = not self.truth.adds(self.rows[trial.config.key], found)
        return Decision(action="pause" if hopeless else "continue", rule="oracle", reason="it knows")

    def promotions(self, situation: Situation) -> Sequence[tuple[int, Decision]]:
        return ()


class Harsh(Oracle):
    """Pauses everything but the first trial."""

    def judge(self, trial: Tried, situation: Situation) -> Decision:
        return Decision(action="continue" if trial.number == 0 else "pause", rule="harsh", reason="so")


def setting(
    truth: Truth, *, workers: int = 1, trainings: float = 12, seed: int = 5, clock: Clock = "seconds"
) -> Setting:
    epochs = truth.table.num_epochs
    ladder = Ladder.of(RungsSpec(), epochs=epochs)
    budget = int(trainings * epochs)
    return Setting(truth=truth, workers=workers, budget_epochs=budget, ladder=ladder, seed=seed, clock=clock)


def play(own: Setting, pruner: Pruner | None = None, asker: Given | None = None) -> tuple[Story, Simulator]:
    told = own.truth.table.p90_ms_C.tolist()
    simulator = Simulator(own, asker or Given(), pruner or PRUNERS["none"](), told)
    return simulator.run(lambda running: lambda config: None), simulator


def line(story: Story, own: Setting) -> Line:
    return line_of(
        story,
        own.truth,
        method="given",
        workers=own.workers,
        seed=own.seed,
        budget_epochs=own.budget_epochs,
        took_s=0.0,
    )


# ---------------------------------------------------------------- accounting


@pytest.mark.parametrize("pruner", sorted(PRUNERS))
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_every_epoch_is_counted_and_none_is_beyond_the_budget(
    truth: Truth, workers: int, pruner: str
) -> None:
    own = setting(truth, workers=workers)
    story, simulator = play(own, PRUNERS[pruner]())
    assert story.epochs == sum(one.epochs_run for one in simulator.plays)
    assert story.epochs <= own.budget_epochs
    assert own.budget_epochs - story.epochs < truth.table.num_epochs or story.num_trials == COUNT
    for one in simulator.plays:
        assert one.tried.state in ("complete", "failed", "stopped")
        assert max(one.tried.qualities, default=0) <= one.epochs_run
    times = [ended.seconds for ended in story.ended]
    assert times == sorted(times)
    assert [ended.epochs for ended in story.ended] == sorted(ended.epochs for ended in story.ended)


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_without_a_pruner_every_trial_is_trained_to_its_end(truth: Truth, workers: int) -> None:
    own = setting(truth, workers=workers)
    story, simulator = play(own)
    assert story.stopped == ()
    assert len(story.ended) + story.num_failed == story.num_trials >= 12
    assert all(
        one.epochs_run == truth.table.num_epochs for one in simulator.plays if one.tried.state == "complete"
    )
    assert len({one.row for one in simulator.plays}) == story.num_trials


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_workers_share_the_work_and_trials_that_run_are_seen(truth: Truth, workers: int) -> None:
    asker = Given()
    story, simulator = play(setting(truth, workers=workers), asker=asker)
    assert asker.running[:workers] == list(range(workers))[: len(asker.running)]
    assert max(asker.running) == min(workers, 12) - 1
    busy = sum(float(one.curve.seconds_E[: one.epochs_run].sum()) for one in simulator.plays)
    assert busy / workers <= story.seconds + 1e-9
    if workers == 1:
        assert story.seconds == pytest.approx(busy)


def test_one_worker_is_a_loop(truth: Truth) -> None:
    own = setting(truth, clock="rows")
    found, simulator = play(own)
    expected: list[Ended] = []
    asker, untried, epochs = Given(), list(truth.rows), 0
    tried: list[Tried] = []
    while untried and epochs + truth.table.num_epochs <= own.budget_epochs:
        row = asker.ask(len(tried), Known(tried=tuple(tried)), untried)
        untried.remove(row)
        tried.append(simulator.plays[len(tried)].tried)
        curve = simulator.plays[len(tried) - 1].curve
        epochs += curve.broke_in or truth.table.num_epochs
        if curve.broke_in is None:
            expected.append(Ended(epochs, float(epochs), row, float(np.nanmax(curve.qualities_E))))
    assert found.ended == tuple(expected)


def test_a_worker_that_ends_first_is_asked_first(truth: Truth) -> None:
    table = truth.table
    slow = np.ones_like(table.cpu_seconds_CSE)
    slow[0] = 100.0
    own = replace(truth, table=replace(table, cpu_seconds_CSE=slow, quality_CSE=np.full(slow.shape, 0.7)))

    class InOrder(Given):
        def ask(self, number: int, known: Known, untried: Sequence[int]) -> int:
            return untried[0]

    story, _ = play(setting(own, workers=2, trainings=6), asker=InOrder())
    assert [one.row for one in story.ended] == [1, 2, 3, 4, 5, 0]


def test_a_training_that_broke_off_fails_and_costs_what_it_ran(truth: Truth) -> None:
    table = truth.table
    seconds = np.ones_like(table.cpu_seconds_CSE)
    seconds[:, :, 4:] = np.nan
    own = replace(truth, table=replace(table, cpu_seconds_CSE=seconds))
    asker = Given()
    story, simulator = play(setting(own, trainings=2), asker=asker)
    assert story.ended == ()
    assert {one.epochs_run for one in simulator.plays} == {5}
    assert (
        story.num_failed == story.num_trials == 2
    )  # three times five epochs would fit, but a third could need nine
    assert {tried.state for tried in asker.told.values()} == {"failed"}


# ---------------------------------------------------------------- the same seed, the same replay


@pytest.mark.parametrize("workers", [1, 4])
def test_a_replay_is_decided_by_its_seed(truth: Truth, snapper: Snapper, workers: int) -> None:
    def replayed(seed: int) -> Story:
        own = setting(truth, workers=workers, seed=seed)
        asker = Stratified(OptunaAsker(RandomSampler(seed=seed), snapper), snapper, seed)
        simulator = Simulator(own, asker, PRUNERS["mo_asha"](), truth.table.p90_ms_C.tolist())
        return simulator.run(lambda running: lambda config: None)

    assert replayed(1) == replayed(1)
    assert replayed(1) != replayed(2)


def test_methods_of_one_seed_get_the_same_training_of_a_configuration(truth: Truth) -> None:
    seen = []
    for order in (1, 2):
        _, simulator = play(setting(truth, trainings=COUNT), asker=Given(seed=order))
        seen.append({one.row: one.curve.qualities_E.tobytes() for one in simulator.plays})
    assert seen[0] == seen[1]
    assert len(seen[0]) == COUNT
    _, simulator = play(setting(truth, trainings=COUNT, seed=6))
    assert seen[0] != {one.row: one.curve.qualities_E.tobytes() for one in simulator.plays}


# ---------------------------------------------------------------- what it is worth


def test_whoever_tried_everything_regrets_nothing(truth: Truth) -> None:
    sound = replace(truth.table, cpu_seconds_CSE=np.ones_like(truth.table.cpu_seconds_CSE))
    own = setting(replace(truth, table=sound), trainings=COUNT)
    story, _ = play(own)
    found = line(story, own)
    assert found.regret_at(found.budget_epochs) == 0.0
    assert story.num_trials == COUNT
    assert found.cost_of(1.0) <= COUNT
    assert found.cost_of(0.5) <= found.cost_of(0.95) <= found.cost_of(1.0)


def test_regret_only_falls_and_its_mean_is_the_area_under_it(truth: Truth) -> None:
    own = setting(truth, workers=4)
    found = line(play(own)[0], own)
    steps = [found.regret_at(epochs) for epochs in range(own.budget_epochs)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] == 1.0
    assert found.mean_regret == pytest.approx(float(np.mean(steps)))
    assert found.cost_of(1.1) == math.inf


def test_an_oracle_never_stops_wrongly_and_a_harsh_one_does(truth: Truth) -> None:
    own = setting(truth, workers=4, trainings=25)
    found = line(play(own, Oracle(truth))[0], own)
    assert found.num_stopped > 0
    assert found.wrong_stops == 0
    assert found.lost == 0.0
    harsh = line(play(own, Harsh(truth))[0], own)
    assert harsh.wrong_stops > 0
    assert harsh.lost > 0


def test_an_oracle_gets_further_with_the_same_rows(truth: Truth) -> None:
    own = setting(truth, trainings=10)
    patient, clever = line(play(own)[0], own), line(play(own, Oracle(truth))[0], own)
    assert clever.num_trials > patient.num_trials
    assert clever.share_at(own.budget_epochs) >= patient.share_at(own.budget_epochs)


def test_a_line_survives_the_journal(truth: Truth) -> None:
    own = setting(truth)
    found = line(play(own)[0], own)
    assert Line.from_json(found.to_json()) == found
