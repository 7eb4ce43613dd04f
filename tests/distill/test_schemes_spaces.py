"""Contract of every scheme: its space in a study, what comes of it, its effort, and what it refuses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from kdsearch.core.facts import Facts
from kdsearch.core.space import Choice, Dimension, Param, Range, Scalar, Space, suggest_all
from kdsearch.core.specteacher import JointSpec
from kdsearch.distill.losses import MEAN_LOSSES, SOFT_LOSSES
from kdsearch.distill.schemes import SCHEMES, build_scheme
from kdsearch.distill.stage import (
    HISTORICAL,
    LIVE,
    TEACHER,
    TRAJECTORY,
    Refusal,
    Setting,
    anchor_signal,
    hidden_signal,
)

RICH = Facts(
    num_labels=3,
    pools=("train", "unlabelled", "augmented"),
    epochs=6,
    anchors=4,
    num_historical=2,
    teacher_width=384,
    teacher_layers=6,
    bert_teacher=True,
    vector_width=300,
    encoder_layers=4,
)
STUDIES: dict[str, Facts] = {
    "rich": RICH,
    "least": replace(RICH, pools=("train",), epochs=2, anchors=1, num_historical=1, teacher_layers=1),
    "unlabelled": replace(RICH, pools=("train", "unlabelled"), epochs=3, num_labels=2),
    "augmented": replace(RICH, pools=("train", "augmented"), epochs=5, anchors=9, num_labels=15),
    "one epoch": replace(RICH, epochs=1),
    "used as it is": replace(RICH, anchors=0, num_historical=0),
    "logits alone": replace(
        RICH, anchors=0, num_historical=0, teacher_width=None, teacher_layers=None, bert_teacher=False
    ),
}
ALLOWED = [
    (name, study) for study, facts in STUDIES.items() for name in SCHEMES if not SCHEMES[name].refusal(facts)
]


class Draws:
    """Suggests values at random, as a sampler that knows nothing would; every answer is noted."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.asked: list[str] = []

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked.append(name)
        return self.rng.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        self.asked.append(name)
        return self.rng.choice((low, self.rng.uniform(low, high), high))

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        self.asked.append(name)
        return self.rng.randint(low, high)


def everything(param: Param) -> Dimension:
    """The widest dimension that a study file may give to a parameter."""
    if param.kind == "str":
        return Choice(param.allowed)
    if param.kind == "int":
        return Range(param.low, param.high, integer=True)
    return Range(param.low + 1e-6 if param.open_low else param.low, param.high)


def suggestions(space: Space, *, wide: bool) -> list[dict[str, Scalar]]:
    narrowed = {key: everything(param) for key, param in space.items()} if wide else {}
    return [suggest_all(space, narrowed, Draws(seed), "scheme") for seed in range(60)]


def setting_of(facts: Facts, **changed: Any) -> Setting:
    setting = Setting(
        epochs=facts.epochs,
        pools=facts.pools,
        rows_per_epoch=1000,
        anchors=facts.anchors,
        historical_weights=(2.0, 1.0)[: facts.num_historical],
        student_width=24,
        teacher_width=facts.teacher_width or 0,
        joint=JointSpec(epochs=2, learning_rate=3e-5),
        seed=1,
    )
    return replace(setting, **changed)


def offered(facts: Facts) -> set[str]:
    """Every signal that such a study can give."""
    live = {TRAJECTORY, LIVE} if facts.trainable_teacher else set()
    hidden = {hidden_signal(n + 1) for n in range(facts.teacher_layers or 0)}
    anchors = {anchor_signal(n + 1) for n in range(facts.anchors)}
    historical = {HISTORICAL} if facts.num_historical else set()
    return {TEACHER} | live | hidden | anchors | historical


# ---------------------------------------------------------------- spaces


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", SCHEMES)
def test_a_space_is_narrowed_and_never_widened(name: str, study: str) -> None:
    scheme, facts = SCHEMES[name], STUDIES[study]
    space = scheme.space(facts)
    assert name == scheme.NAME and list(space) == list(scheme.SPACE)
    for key, param in space.items():
        whole = scheme.SPACE[key]
        assert (param.kind, param.when, param.doc) == (whole.kind, whole.when, whole.doc)
        assert whole.low <= param.low <= param.high <= whole.high
        assert set(param.allowed) <= set(whole.allowed)
        assert param.doc and not param.architecture, "a scheme does not change the latency"


@pytest.mark.parametrize("study", [None, *STUDIES])
@pytest.mark.parametrize("name", SCHEMES)
def test_every_default_is_legal(name: str, study: str | None) -> None:
    scheme = SCHEMES[name]
    space = scheme.SPACE if study is None else scheme.space(STUDIES[study])
    for key, param in space.items():
        assert all(param.accepts(value) for value in param.default.values()), key


@pytest.mark.parametrize("name", SCHEMES)
def test_a_condition_names_an_earlier_parameter_and_values_of_it(name: str) -> None:
    space, earlier = SCHEMES[name].SPACE, set[str]()
    for key, param in space.items():
        if param.when is not None:
            assert param.when[0] in earlier and set(param.conditions) <= set(space[param.when[0]].allowed)
        earlier.add(key)


@pytest.mark.parametrize(("name", "study"), ALLOWED)
def test_what_every_study_can_have_is_among_the_defaults_without_facts(name: str, study: str) -> None:
    space = SCHEMES[name].space(STUDIES[study])
    for key, param in SCHEMES[name].SPACE.items():
        assert all(space[key].accepts(value) for value in param.default.values()), key


@pytest.mark.parametrize("wide", [False, True], ids=["defaults", "all that is legal"])
@pytest.mark.parametrize(("name", "study"), ALLOWED)
def test_whatever_a_space_suggests_can_be_run_and_sees_as_many_rows_as_the_control(
    name: str, study: str, wide: bool
) -> None:
    facts = STUDIES[study]
    setting = setting_of(facts)
    for params in suggestions(SCHEMES[name].space(facts), wide=wide):
        built = build_scheme(name, params).stages(setting)
        assert sum(stage.epochs * stage.rows_per_epoch for stage in built) == facts.epochs * 1000
        assert all(stage.epochs >= 1 and stage.rows_per_epoch == 1000 for stage in built)
        assert all(set(stage.pools) <= set(facts.pools) for stage in built)
        assert set().union(*(stage.needs for stage in built)) <= offered(facts)
        assert built[-1].scored, "the last weights must count"


def test_every_pool_is_offered_and_no_other() -> None:
    pools = {study: SCHEMES["offline"].space(facts)["pools"] for study, facts in STUDIES.items()}
    assert pools["least"].allowed == ("train",)
    assert pools["unlabelled"].default.values() == ("train", "train+unlabelled")
    assert not pools["unlabelled"].accepts("train+augmented")
    assert pools["rich"].default.values() == pools["rich"].allowed == RICH.pool_choices
    assert set(SCHEMES["offline"].SPACE["pools"].allowed) == set(RICH.pool_choices)


def test_one_pool_alone_is_no_question_to_a_sampler() -> None:
    draws = Draws(0)
    values = suggest_all(SCHEMES["offline"].space(STUDIES["least"]), {}, draws, "offline")
    assert values["pools"] == "train" and "offline.pools" not in draws.asked


@pytest.mark.parametrize("facts", STUDIES.values(), ids=STUDIES)
def test_hints_are_of_layers_that_exist_and_leave_epochs_for_the_logits(facts: Facts) -> None:
    if SCHEMES["hint"].refusal(facts):
        return
    space = SCHEMES["hint"].space(facts)
    depth = facts.teacher_layers or 0
    assert space["layer"].accepts(depth) and not space["layer"].accepts(depth + 1)
    assert not space["layer"].accepts(0) and not space["hint_epochs"].accepts(0)
    assert space["hint_epochs"].accepts(facts.epochs - 1)
    assert not space["hint_epochs"].accepts(facts.epochs)


def test_parameters_exist_only_where_they_mean_something() -> None:
    def names(name: str, **fixed: Scalar) -> set[str]:
        narrowed: dict[str, Dimension] = {key: Choice((value,)) for key, value in fixed.items()}
        return set(suggest_all(SCHEMES[name].space(RICH), narrowed, Draws(0), name))

    assert names("joint_isolated", loss="mse") == {"loss", "lambda"}
    assert names("joint_isolated", loss="kl") == {"loss", "lambda", "temperature"}
    assert names("joint_mutual", variant="mutual") == {"variant", "temperature", "lambda", "mu"}
    assert names("joint_mutual", variant="prokt") == {"variant", "temperature", "teacher_mix"}
    both = {"temperature", "lambda", "clip", "rates"}
    assert names("joint_sum") == both | {"learning_rate"}
    assert names("joint_sum", rates="own") == both
    assert set(SOFT_LOSSES) == set(MEAN_LOSSES) == set(SCHEMES["offline"].SPACE["loss"].allowed)


@pytest.mark.parametrize("name", ["joint_isolated", "joint_mutual", "joint_sum"])
def test_joint_schemes_see_the_labelled_pool_alone(name: str) -> None:
    for params in suggestions(SCHEMES[name].space(RICH), wide=True):
        (stage,) = build_scheme(name, params).stages(setting_of(RICH))
        assert stage.pools == ("train",)


# ---------------------------------------------------------------- refusals

REFUSED: dict[str, dict[str, str]] = {
    "one epoch": {"hint": "two stages"},
    "used as it is": {"multi_teacher": "historical", "route": "anchors"},
    "logits alone": {
        "joint_isolated": "only the logits",
        "joint_mutual": "only the logits",
        "joint_sum": "only the logits",
        "multi_teacher": "historical",
        "hint": "only its logits",
        "route": "only its logits",
    },
}


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_is_refused_where_it_cannot_be_and_nowhere_else(name: str, study: str) -> None:
    refusal = SCHEMES[name].refusal(STUDIES[study])
    expected = REFUSED.get(study, {}).get(name)
    if expected is None:
        assert refusal is None
    else:
        assert isinstance(refusal, Refusal)
        assert name in refusal.message and expected in refusal.message and refusal.expected
