"""Presets: known recipes come first, are marked, and are tried exactly as they are written or not at all."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage

from kdsearch.core.space import Choice, Dimension, Fixed, Range, Scalar, encode
from kdsearch.core.studyfile import spec_from_json
from kdsearch.search.asking import Search
from kdsearch.search.dimensions import holds
from kdsearch.search.known import Known
from kdsearch.search.plan import Plan
from kdsearch.search.presets import PRESETS
from kdsearch.search.spaces import Spaces, registered
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage

BASE: dict[str, Any] = {
    "version": 1,
    "name": "s",
    "data": {"train": "a", "validation": "b"},
    "teacher": {"model": "m"},
    "search": {"presets": ["literature"]},
}
RECIPES = [f"preset:literature/{name}" for name in PRESETS["literature"]]


@pytest.fixture
def storage(store: Store) -> BaseStorage:
    return optuna_storage(store)


def plan(spaces: Spaces, **sections: object) -> Plan:
    return Plan(spec_from_json({**BASE, **sections}), spaces)


def test_every_recipe_can_be_tried_in_a_study_that_says_nothing() -> None:
    for preset, recipes in PRESETS.items():
        everything = plan(
            registered(),
            schemes=sorted({recipe.scheme for recipe in recipes.values()}),
            search={"presets": [preset]},
            budget={"trials": 1000},
        )
        assert everything.warnings() == []
        origins = [origin for origin, _ in everything.first_trials()]
        assert {o for o in origins if o.startswith("preset:")} == {f"preset:{preset}/{n}" for n in recipes}
        assert all(recipe.source for recipe in recipes.values())


def test_recipes_come_first_with_every_student_then_the_pairs(spaces: Spaces) -> None:
    first = plan(spaces).first_trials()
    assert [origin for origin, _ in first[:8]] == [origin for origin in RECIPES for _ in range(2)]
    assert [params["student"] for _, params in first[:4]] == ["textcnn", "bilstm"] * 2
    assert first[8:] == plan(spaces, search={}, budget={"trials": 32}).first_trials()


def test_they_count_within_the_budget(spaces: Spaces) -> None:
    assert len(plan(spaces, budget={"trials": 5}).first_trials()) == 5
    (warning,) = plan(spaces, budget={"trials": 5}).warnings()
    assert "12" in warning
    assert plan(spaces, budget={"trials": 12}).warnings() == []


def test_optuna_tries_what_the_recipe_says_and_marks_it(storage: BaseStorage, spaces: Spaces) -> None:
    wished = plan(spaces)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of values outside of a distribution, and drops them
        search = Search.create(storage, "s", wished)
        asked = [search.ask(Known()) for _ in range(8 + 16 + 1)]
    assert [a.origin for a in asked] == [f.origin for f in wished.first_trials()] + ["sampler"]
    for a in asked[:8]:
        recipe = PRESETS["literature"][a.origin.partition("/")[2]]
        assert {**a.config.scheme_params, **recipe.params} == a.config.scheme_params
        assert a.config.scheme == recipe.scheme
    attributes = optuna.load_study(study_name="s", storage=storage).trials[0].user_attrs
    assert attributes["kdsearch:origin"] == RECIPES[0]


def test_a_mark_outlives_its_process_and_recipes_are_enqueued_once(
    storage: BaseStorage, spaces: Spaces
) -> None:
    wished = plan(spaces)
    asked = Search.create(storage, "s", wished).ask(Known())
    again = Search.create(storage, "s", wished)
    assert again.orphans(set(), Known()) == [asked]
    assert asked.origin == RECIPES[0]
    trials = optuna.load_study(study_name="s", storage=storage).trials
    assert len(trials) == len(wished.first_trials())


def test_first_trials_of_an_older_version_are_not_enqueued_again(
    storage: BaseStorage, spaces: Spaces
) -> None:
    plain = plan(spaces, search={})
    study = optuna.create_study(study_name="s", storage=storage, directions=["maximize", "minimize"])
    for _, params in plain.first_trials():  # as they were kept: with their parameters alone
        study.enqueue_trial(params, user_attrs={"kdsearch:first": params})
    search = Search.create(storage, "s", plain)
    assert len(study.trials) == len(plain.first_trials())
    assert search.ask(Known()).origin == "control"


@pytest.mark.parametrize(
    ("scheme", "left_out"),
    [
        ({"loss": "mse"}, {"low-loss", "t4", "t10"}),
        ({"loss": "kl"}, {"tang"}),
        ({"loss": "kl", "temperature": 4, "lambda": 0.5}, {"low-loss", "tang", "t10"}),
        ({"lambda": [0.5, 0.9]}, {"low-loss", "tang"}),
        ({"temperature": {"min": 1, "max": 8}}, {"t10"}),
        ({"temperature": {"min": 1, "max": 15.7, "step": 0.7}}, {"t4", "t10"}),
    ],
)
def test_a_recipe_that_the_study_rules_out_is_left_out_with_a_warning(
    spaces: Spaces, scheme: dict[str, object], left_out: set[str]
) -> None:
    narrowed = plan(spaces, schemes=[{"type": "offline", **scheme}])
    tried = {origin.partition("/")[2] for origin, _ in narrowed.first_trials() if "/" in origin}
    assert tried == set(PRESETS["literature"]) - left_out
    said = narrowed.warnings()
    assert {w.split("/")[1].split(" ")[0] for w in said} == left_out
    assert all("`offline." in w and ".0 " not in w for w in said)


def test_what_a_study_fixes_is_not_asked_of_optuna(spaces: Spaces) -> None:
    fixed = plan(
        spaces, schemes=[{"type": "offline", "loss": "kl", "temperature": [4.0], "lambda": [0.5, 1]}]
    )
    ((_, params), *_) = [f for f in fixed.first_trials() if f.origin.endswith("/t4")]
    assert params == {"student": "textcnn", "scheme": "offline", "offline.lambda": 0.5}


def test_a_study_without_the_scheme_says_so(spaces: Spaces) -> None:
    without = plan(spaces, schemes=["none"])
    assert [origin for origin, _ in without.first_trials() if "/" in origin] == []
    assert len(without.warnings()) == len(RECIPES)
    assert all("does not try offline" in w for w in without.warnings())


def test_a_teacher_of_the_best_accuracy_is_no_low_loss_teacher(spaces: Spaces) -> None:
    teacher = {"model": "m", "finetune": {"select": "accuracy"}}
    (warning,) = plan(spaces, teacher=teacher).warnings()
    assert warning.startswith("preset literature/low-loss is left out")
    assert plan(spaces, teacher={"model": "m", "finetune": {}}).warnings() == []


@pytest.mark.parametrize(
    ("dimension", "value", "held"),
    [
        (Fixed("kl"), "kl", True),
        (Fixed(4), 4.0, True),
        (Fixed(4.0), 4.5, False),
        (Choice(((2, 3), (3, 4))), (3, 4), True),
        (Choice((0.5, 0.9)), 1.0, False),
        (Range(1.0, 16.0, log=True), 16.0, True),
        (Range(1.0, 16.0), 16.5, False),
        (Range(0.1, 1.0, step=0.3), 0.7, True),
        (Range(0.1, 1.0, step=0.3), 0.5, False),
        (Range(1, 9, step=2, integer=True), 5, True),
        (Range(1, 9, step=2, integer=True), 4, False),
        (Range(1.0, 16.0), "kl", False),
    ],
)
def test_holds_is_what_optuna_would_accept(dimension: Dimension, value: Scalar, held: bool) -> None:
    assert holds(dimension, value) == held
    if held:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.enqueue_trial({"x": encode(value)})
        assert dimension.suggest(study.ask(), "x") == value
