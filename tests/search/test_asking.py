"""Ask and tell on a real Postgres: each trial told once, whoever crashes in between."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import Trial, TrialState

from kdsearch.core.errors import NotFoundError, StorageError
from kdsearch.core.spec import BudgetSpec, SearchSpec, StudySpec
from kdsearch.core.specdata import DataSpec, SourceSpec
from kdsearch.core.specteacher import TeacherSpec
from kdsearch.search import asking
from kdsearch.search.asking import DIRECTIONS, METRICS, Search
from kdsearch.search.known import Known
from kdsearch.search.plan import Plan
from kdsearch.search.samplers import SAMPLERS
from kdsearch.search.spaces import Spaces
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage


@pytest.fixture
def storage(store: Store) -> BaseStorage:
    return optuna_storage(store)


@pytest.fixture
def plan(spaces: Spaces) -> Plan:
    return Plan(spec(), spaces)


def spec(*, trials: int = 10, sampler: str = "tpe", seed: int = 17) -> StudySpec:
    source = SourceSpec(path="x")
    return StudySpec(
        version=1,
        name="s",
        data=DataSpec(train=source, validation=source),
        teacher=TeacherSpec(model="m"),
        budget=BudgetSpec(trials=trials),
        search=SearchSpec(sampler=sampler, seed=seed),
    )


def trials(storage: BaseStorage) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=storage).trials


def test_first_come_the_pairs_then_the_sampler(storage: BaseStorage, plan: Plan) -> None:
    search = Search.create(storage, "s", plan)
    asked = [search.ask(Known()) for _ in range(7)]
    first = [{"student": a.config.student, "scheme": a.config.scheme} for a in asked[:4]]
    assert first == [params for _, params in plan.first_trials()]
    assert [a.origin for a in asked] == ["control"] * 2 + ["stratified"] * 2 + ["sampler"] * 3
    assert [a.number for a in asked] == list(range(7))
    for a, frozen in zip(asked, trials(storage), strict=True):
        assert frozen.state == TrialState.RUNNING
        suggested = {k: v for k, v in a.config.params.items() if k in frozen.params}
        assert {k: "-".join(map(str, v)) if isinstance(v, tuple) else v for k, v in suggested.items()} == (
            frozen.params
        )


def test_optunas_own_tools_see_what_is_optimised(storage: BaseStorage, plan: Plan) -> None:
    Search.create(storage, "s", plan)
    study = optuna.load_study(study_name="s", storage=storage)
    assert (tuple(study.directions), tuple(study.metric_names or ())) == (DIRECTIONS, METRICS)


def test_creating_twice_enqueues_once(storage: BaseStorage, plan: Plan) -> None:
    Search.create(storage, "s", plan)
    search = Search.create(storage, "s", plan)
    search.ask(Known())
    Search.create(storage, "s", plan)
    assert len(trials(storage)) == len(plan.first_trials()) == 4


def test_no_more_first_trials_than_the_budget_until_it_is_raised(
    storage: BaseStorage, spaces: Spaces
) -> None:
    Search.create(storage, "s", Plan(spec(trials=1), spaces)).ask(Known())
    assert len(trials(storage)) == 1
    search = Search.create(storage, "s", Plan(spec(trials=3), spaces))
    assert len(trials(storage)) == 3
    config = search.ask(Known()).config
    assert (config.student, config.scheme) == ("bilstm", "none")


def test_first_trials_wait_a_few_at_a_time(
    storage: BaseStorage, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "QUEUED", 3)
    search = Search.create(storage, "s", plan)
    assert len(trials(storage)) == 3
    asked = [search.ask(Known()) for _ in range(3)]
    other = Search.open(storage, "s", plan)  # whoever asks next enqueues the others
    asked += [other.ask(Known()), search.ask(Known()), other.ask(Known())]
    firsts = [{"student": a.config.student, "scheme": a.config.scheme} for a in asked[:4]]
    assert firsts == [params for _, params in plan.first_trials()]
    assert [a.origin for a in asked] == ["control"] * 2 + ["stratified"] * 2 + ["sampler"] * 2
    assert [a.number for a in asked] == list(range(6))


def test_opening_what_is_not_there(storage: BaseStorage, plan: Plan) -> None:
    with pytest.raises(NotFoundError, match="'s'"):
        Search.open(storage, "s", plan)


def test_two_processes_with_the_same_seed_propose_different_trials(
    storage: BaseStorage, spaces: Spaces
) -> None:
    plan = Plan(spec(sampler="random"), spaces)
    searches = [Search.create(storage, "s", plan), Search.open(storage, "s", plan)]
    for _ in plan.first_trials():
        searches[0].ask(Known())
    rates = [search.ask(Known()).config.learning_rate for search in searches * 3]
    assert len(set(rates)) == len(rates)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_study_again_proposes_the_same(storage: BaseStorage, spaces: Spaces, sampler: str) -> None:
    def proposals(name: str, seed: int) -> list[str]:
        search = Search.create(storage, name, Plan(spec(sampler=sampler, seed=seed), spaces))
        keys = []
        for number in range(13):
            asked = search.ask(Known())
            search.tell_complete(number, quality=asked.config.learning_rate, latency_ms=1.0, constraints={})
            keys.append(asked.config.key)
        return keys

    once, again, other = proposals("a", 1), proposals("b", 1), proposals("c", 2)
    assert once == again
    assert not set(once) & set(other)


def test_an_orphan_keeps_its_values_and_known_trials_are_none(storage: BaseStorage, plan: Plan) -> None:
    search = Search.create(storage, "s", plan)
    asked = [search.ask(Known()) for _ in range(3)]
    search.tell_failed(2)
    other = Search.open(storage, "s", plan)
    assert other.orphans({0}, Known()) == [asked[1]]
    assert other.orphans({0, 1}, Known()) == []


def test_an_orphan_cut_off_in_the_middle_of_asking(storage: BaseStorage, plan: Plan) -> None:
    search = Search.create(storage, "s", plan)
    study = optuna.load_study(study_name="s", storage=storage)
    half = study.ask()
    kept = half.suggest_categorical("student", ("textcnn", "bilstm"))
    (orphan,) = search.orphans(set(), Known())
    assert (orphan.number, orphan.config.student) == (half.number, kept)
    assert search.orphans(set(), Known()) == [orphan]


def test_telling_twice_is_telling_once(storage: BaseStorage, plan: Plan) -> None:
    search = Search.create(storage, "s", plan)
    for _ in range(3):
        search.ask(Known())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            search.tell_complete(0, quality=0.9, latency_ms=2.0, constraints={"latency_ms": -3.0})
            search.tell_rejected(1, {"latency_ms": 4.0})
            search.tell_failed(2)
    search.tell_complete(2, quality=0.1, latency_ms=1.0, constraints={})
    complete, rejected, failed, _ = trials(storage)
    assert (complete.state, complete.values) == (TrialState.COMPLETE, [0.9, 2.0])
    assert (rejected.state, failed.state) == (TrialState.PRUNED, TrialState.FAIL)
    assert (complete.constraints, rejected.constraints) == ({"latency_ms": -3.0}, {"latency_ms": 4.0})
    assert failed.values is None


def test_a_tell_that_died_after_its_constraint_goes_on(storage: BaseStorage, plan: Plan) -> None:
    search = Search.create(storage, "s", plan)
    asked = search.ask(Known())
    study = optuna.load_study(study_name="s", storage=storage)
    Trial(study, asked.optuna_trial_id).set_constraint("latency_ms", -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.tell_complete(
            0, quality=0.5, latency_ms=1.0, constraints={"latency_ms": -1.0, "size_mb": -2.0}
        )
    assert trials(storage)[0].constraints == {"latency_ms": -1.0, "size_mb": -2.0}


def test_only_what_keeps_its_constraints_is_best_to_optuna(storage: BaseStorage, plan: Plan) -> None:
    search = Search.create(storage, "s", plan)
    for number, (quality, latency) in enumerate([(0.9, 1.0), (0.99, 9.0), (0.8, 2.0)]):
        search.ask(Known())
        search.tell_complete(
            number, quality=quality, latency_ms=latency, constraints={"latency": latency - 5}
        )
    best = optuna.load_study(study_name="s", storage=storage).best_trials
    assert [trial.number for trial in best] == [0]


def test_tpe_learns_from_what_it_is_told(storage: BaseStorage, spaces: Spaces) -> None:
    plan = Plan(spec(), spaces)
    search = Search.create(storage, "s", plan)
    schemes: Counter[str] = Counter()
    for number in range(40):
        config = search.ask(Known()).config
        good = config.scheme == "offline"
        search.tell_complete(number, quality=0.9 if good else 0.1, latency_ms=1.0, constraints={})
        if number >= 20:
            schemes[config.scheme] += 1
    assert schemes["offline"] > 2 * schemes["none"]


def test_asking_is_quiet(storage: BaseStorage, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = Search.create(storage, "s", plan)
        search.ask(Known())
        search.tell_failed(0)
        search.tell_failed(0)
        Search.open(storage, "s", plan)
    assert capsys.readouterr() == ("", "")


def test_a_search_of_one_student_alone(storage: BaseStorage, spaces: Spaces) -> None:
    one = replace(spaces, students={"textcnn": spaces.students["textcnn"]})
    asked = Search.create(storage, "s", Plan(spec(), one)).ask(Known())
    assert asked.config.student == "textcnn"
    assert "student" not in trials(storage)[0].params


class Away:
    """A method of Optuna's storage that finds the database away a few times."""

    def __init__(self, patch: pytest.MonkeyPatch, storage: BaseStorage, method: str, times: int) -> None:
        self.left, self.original = times, getattr(storage, method)
        patch.setattr(storage, method, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.left:
            self.left -= 1
            cause = OSError("server closed the connection, postgresql://me:hunter2@host/db")
            raise StorageInternalError("An exception is raised during the commit.") from cause
        return self.original(*args, **kwargs)


def test_a_database_that_is_away_is_no_bug(
    storage: BaseStorage, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.create(storage, "s", plan)
    Away(monkeypatch, storage, "get_all_trials", times=1)
    with pytest.raises(StorageError) as caught:
        search.ask(Known())
    assert "server closed the connection" in caught.value.what
    assert "hunter2" not in caught.value.what
    assert search.ask(Known()).number == 0


def test_telling_waits_for_the_database(
    storage: BaseStorage, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.create(storage, "s", plan)
    search.ask(Known())
    Away(monkeypatch, storage, "set_trial_state_values", times=2)
    search.tell_complete(0, quality=0.5, latency_ms=1.0, constraints={"latency_ms": -1.0})
    assert trials(storage)[0].values == [0.5, 1.0]


def test_a_name_that_optuna_has_already_is_numbered(storage: BaseStorage, plan: Plan) -> None:
    names = []
    for _ in range(3):
        names.append(Search.free_name(storage, "s"))
        Search.create(storage, names[-1], plan)
    assert names == ["s", "s-2", "s-3"]
