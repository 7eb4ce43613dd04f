"""A plan gives only what the study allows, under the names that Optuna keeps."""

from __future__ import annotations

import json

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.core.records import TrialConfig
from kdsearch.core.studyfile import spec_from_json
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import TRAINING, Spaces, registered

BASE = {
    "version": 1,
    "name": "s",
    "data": {"train": "a", "validation": "b"},
    "teacher": {"model": "m"},
}


def plan(spaces: Spaces, **sections: object) -> Plan:
    return Plan(spec_from_json({**BASE, **sections}), spaces)


def drawn(plan: Plan, seed: int) -> tuple[TrialConfig, dict[str, object]]:
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=seed), directions=["maximize", "minimize"]
    )
    trial = study.ask()
    return plan.suggest(trial), trial.params


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_value_is_legal_and_exists_where_its_condition_holds(spaces: Spaces, seed: int) -> None:
    for registry in (spaces, registered()):
        config, _ = drawn(Plan(spec_from_json(BASE), registry), seed)
        for space, values in (
            (registry.students[config.student], config.student_params),
            (registry.schemes[config.scheme], config.scheme_params),
            (TRAINING, {"learning_rate": config.learning_rate, "batch_size": config.batch_size}),
        ):
            for name, param in space.items():
                exists = param.exists(values)
                assert (name in values) == exists
            assert all(space[name].accepts(value) for name, value in values.items())
            kinds = {"int": int, "float": float, "str": str, "bool": bool, "ints": tuple}
            assert all(type(value) is kinds[space[name].kind] for name, value in values.items())
        assert TrialConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_what_the_study_says_replaces_the_defaults(spaces: Spaces) -> None:
    narrowed = plan(
        spaces,
        students=[
            {"type": "textcnn", "filters": 32, "kernel_sizes": [[2, 3]], "dropout": {"min": 0, "max": 0.9}}
        ],
        schemes=[{"type": "offline", "loss": "kl", "temperature": {"min": 1, "max": 16}, "lambda": 1}],
        training={"epochs": 3, "learning_rate": 1, "batch_size": [8, 16], "seed": 5},
    )
    config, asked = drawn(narrowed, 1)
    assert config.student == "textcnn"
    assert (config.student_params["filters"], config.student_params["kernel_sizes"]) == (32, (2, 3))
    assert (config.learning_rate, config.epochs, config.seed) == (1.0, 3, 5)
    assert config.batch_size in (8, 16)
    assert set(asked) <= {"scheme", "textcnn.dropout", "batch_size", "offline.temperature"}
    assert {"scheme", "textcnn.dropout", "batch_size"} <= set(asked)


def test_temperature_ranges_over_reals_also_when_its_ends_are_whole(spaces: Spaces) -> None:
    only = plan(spaces, schemes=[{"type": "offline", "loss": "kl", "temperature": {"min": 1, "max": 16}}])
    values = [drawn(only, seed)[0].scheme_params.get("temperature") for seed in range(20)]
    assert any(isinstance(value, float) and not value.is_integer() for value in values)


def test_the_control_is_always_there_and_first(spaces: Spaces) -> None:
    pairs = plan(spaces, schemes=["offline"]).first_trials()
    assert [origin for origin, _ in pairs[:4]] == ["control", "control", "stratified", "stratified"]
    assert [(p["scheme"], p["student"]) for _, p in pairs[:4]] == [
        ("none", "textcnn"),
        ("none", "bilstm"),
        ("offline", "textcnn"),
        ("offline", "bilstm"),
    ]
    assert plan(spaces).first_trials() == plan(spaces, schemes=["offline", "none"]).first_trials() == pairs


@pytest.mark.parametrize(("trials", "first"), [(1, 1), (3, 3), (4, 4), (12, 4), (16, 8), (40, 20), (47, 20)])
def test_every_pair_gets_equally_many_first_trials_out_of_half_of_the_budget(
    spaces: Spaces, trials: int, first: int
) -> None:
    pairs = plan(spaces, budget={"trials": trials}).first_trials()
    assert len(pairs) == first
    if first >= 4:
        assert {pairs.count(pair) for pair in pairs} == {first // 4}


def test_defaults_of_the_real_registries_are_within_their_own_limits() -> None:
    spaces = registered()
    for space in (*spaces.students.values(), *spaces.schemes.values(), TRAINING):
        for param in space.values():
            assert all(param.accepts(value) for value in param.narrow(param.default).values())
