"""Every sampler by one contract: conditional spaces, enqueued, stopped and running trials, constraints."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from kdsearch.core.records import TrialConfig, Tried
from kdsearch.core.space import Choice, Fixed, encode
from kdsearch.core.spec import BudgetSpec, Ceiling, ConstraintsSpec, SearchSpec, StudySpec, VariantSpec
from kdsearch.core.specdata import DataSpec, SourceSpec
from kdsearch.core.specteacher import TeacherSpec
from kdsearch.search.asking import Asked, Search
from kdsearch.search.known import Known
from kdsearch.search.plan import Plan
from kdsearch.search.samplers import SAMPLERS
from kdsearch.search.spaces import Spaces
from kdsearch.search.union import dimensions, distributions

TEXTCNN = VariantSpec(
    type="textcnn",
    params={"dropout": Fixed(0.1), "kernel_sizes": Fixed((2, 3, 4)), "filters": Choice((64, 128))},
)
BILSTM = VariantSpec(type="bilstm", params={"hidden": Fixed(64), "pooling": Fixed("max")})


def plan_of(
    spaces: Spaces, sampler: str, *, trials: int = 60, small: bool = False, ceiling: float = 5.0
) -> Plan:
    """``small``: eight configurations, of which four are of each student."""
    source = SourceSpec(path="x")
    spec = StudySpec(
        version=1,
        name="s",
        data=DataSpec(train=source, validation=source),
        teacher=TeacherSpec(model="m"),
        budget=BudgetSpec(trials=trials),
        constraints=ConstraintsSpec(latency_ms=Ceiling(max=ceiling)),
        search=SearchSpec(sampler=sampler),
    )
    if small:
        training = spec.training.model_copy(
            update={"learning_rate": Fixed(1e-3), "batch_size": Choice((32, 64))}
        )
        update = {"students": (TEXTCNN, BILSTM), "schemes": (VariantSpec(type="none"),), "training": training}
        spec = spec.model_copy(update=update)
    return Plan(spec, spaces)


def latency(config: TrialConfig) -> float:
    params = config.student_params
    return 0.01 * float(params["filters"]) if "filters" in params else 2.0 * float(params["ratio"])  # type: ignore[arg-type]


class Study:
    """A study in memory, and what a worker would know of it."""

    def __init__(self, plan: Plan) -> None:
        self.storage = InMemoryStorage()
        self.search = Search.create(self.storage, "s", plan)
        self.tried: list[Tried] = []

    @property
    def known(self) -> Known:
        return Known(tried=list(self.tried), latency_ms=latency, quality_floor=0.1)

    def ask(self) -> Asked | None:
        asked = self.search.ask(self.known)
        if asked is not None:
            self.tried.append(
                Tried(
                    number=asked.number,
                    config=asked.config,
                    state="running",
                    latency_ms=latency(asked.config),
                    qualities={},
                )
            )
        return asked

    def finish(self, number: int, state: str) -> None:
        at = next(i for i, t in enumerate(self.tried) if t.number == number)
        config = self.tried[at].config
        quality = 0.8 - 0.01 * (math.log(config.learning_rate) + 7) ** 2
        if state == "complete":
            limits = {"latency_ms": latency(config) - 5.0}
            self.search.tell_complete(number, quality=quality, latency_ms=latency(config), constraints=limits)
        elif state == "stopped":
            self.search.tell_rejected(number, {})
        else:
            self.search.tell_failed(number)
        self.tried[at] = replace(
            self.tried[at],
            state=state,
            quality=quality if state == "complete" else None,  # type: ignore[arg-type]
        )

    def frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return optuna.load_study(study_name="s", storage=self.storage).trials[number]


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySampler:
    def test_trials_of_every_state_and_kind(self, spaces: Spaces, sampler: str) -> None:
        study = Study(plan_of(spaces, sampler))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for turn in range(26):
                asked = study.ask()
                assert asked is not None
                self._is_written(study, asked)
                if turn % 6 != 5:  # some stay running
                    study.finish(asked.number, {3: "stopped", 7: "failed"}.get(turn % 8, "complete"))
        configs = [t.config.identity for t in study.tried if t.state != "failed"]
        assert len(configs) == len(set(configs))

    def _is_written(self, study: Study, asked: Asked) -> None:
        frozen = study.frozen(asked.number)
        assert frozen.state == TrialState.RUNNING
        params = asked.config.params
        assert {name: encode(params[name]) for name in frozen.params} == frozen.params
        searched = {name for name, d in dimensions(study.search._plan).items() if len(set(d.values())) > 1}
        assert frozen.params.keys() == searched & params.keys()

    def test_a_small_space_is_tried_once_and_then_nothing_is_left(self, spaces: Spaces, sampler: str) -> None:
        study = Study(plan_of(spaces, sampler, small=True))
        asked = []
        while (one := study.ask()) is not None:
            asked.append(one)
            study.finish(one.number, "complete")
        assert len(asked) == len({one.config.identity for one in asked}) == 8
        before = len(study.storage.get_all_trials(0))
        assert study.ask() is None
        assert len(study.storage.get_all_trials(0)) == before

    def test_what_is_known_to_be_too_slow_never_becomes_a_trial(self, spaces: Spaces, sampler: str) -> None:
        study = Study(plan_of(spaces, sampler, ceiling=0.7))  # narrow textcnns alone are that fast
        for _ in range(14):
            asked = study.ask()
            assert asked is not None
            assert latency(asked.config) <= 0.7
            study.finish(asked.number, "complete")
        states = {
            t.state
            for t in study.storage.get_all_trials(0)
            if t.number not in {a.number for a in study.tried}
        }
        assert states <= {TrialState.FAIL, TrialState.WAITING}

    def test_asking_twice_without_an_answer_differs(self, spaces: Spaces, sampler: str) -> None:
        study = Study(plan_of(spaces, sampler, trials=1))
        for _ in range(12):
            asked = study.ask()
            assert asked is not None
            study.finish(asked.number, "complete")
        open_ones = [study.ask() for _ in range(3)]
        assert len({one.config.identity for one in open_ones if one is not None}) == 3


def test_first_trials_that_can_be_nothing_new_are_dropped_and_not_counted(spaces: Spaces) -> None:
    study = Study(
        plan_of(spaces, "random", trials=60, small=True)
    )  # sixty first trials of eight configurations
    enqueued = len(study.storage.get_all_trials(0))
    assert enqueued > 8
    while (asked := study.ask()) is not None:
        study.finish(asked.number, "complete")
    states = [t.state for t in study.storage.get_all_trials(0)]
    assert states.count(TrialState.COMPLETE) == 8
    assert states.count(TrialState.FAIL) == len(states) - 8
    Search.create(study.storage, "s", study.search._plan)  # a resumed study does not enqueue them again
    assert len(study.storage.get_all_trials(0)) == len(states) == enqueued


def test_a_failed_configuration_may_be_tried_again(spaces: Spaces) -> None:
    study = Study(plan_of(spaces, "random", small=True))
    while (asked := study.ask()) is not None:
        study.finish(asked.number, "failed" if asked.number == 3 else "complete")
    failed = next(t.config for t in study.tried if t.state == "failed")
    assert [t.state for t in study.tried if t.config == failed] == ["failed", "complete"]


def test_a_first_trial_keeps_what_was_decided_of_it(spaces: Spaces) -> None:
    plan = plan_of(spaces, "known_latency", trials=100)
    study = Study(plan)
    for first in plan.first_trials()[:16]:
        asked = study.ask()
        assert asked is not None
        assert {"student": asked.config.student, "scheme": asked.config.scheme} == first.params
        assert asked.origin == first.origin
        study.finish(asked.number, "complete")


def test_an_orphan_is_completed_without_trying_anything_twice(spaces: Spaces) -> None:
    plan = plan_of(spaces, "random", small=True)
    study = Study(plan)
    for _ in range(7):
        asked = study.ask()
        assert asked is not None
        study.finish(asked.number, "complete")
    half = optuna.load_study(study_name="s", storage=study.storage).ask()
    numbers = {t.number for t in study.tried}
    missing = study.search.orphans(numbers, study.known)
    lost = study.frozen(half.number)
    assert ([a.number for a in missing], lost.state) in (
        ([half.number], TrialState.RUNNING),
        ([], TrialState.FAIL),  # it was of the student that has nothing left
    )
    assert not {a.config.identity for a in missing} & {t.config.identity for t in study.tried}


def test_the_union_has_every_parameter_that_any_trial_has(spaces: Spaces) -> None:
    plan = plan_of(spaces, "random")
    union = distributions(plan)
    study = Study(plan)
    seen: dict[str, object] = {}
    for _ in range(40):
        asked = study.ask()
        assert asked is not None
        seen |= study.frozen(asked.number).distributions
    assert seen == {name: union[name] for name in seen}
    assert set(union) - set(seen) == {
        "bilstm.lower"
    }  # a condition of a condition that this study never meets
