"""What a study offers narrows its search: nothing impossible is proposed, nothing is asked for in vain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.core.errors import StudyFileError
from kdsearch.core.facts import Facts
from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Space
from kdsearch.core.studyfile import render, spec_from_json
from kdsearch.distill.schemes import SCHEMES, build_scheme
from kdsearch.distill.stage import HISTORICAL, LIVE, TRAJECTORY, Setting, anchor_signal, hidden_signal
from kdsearch.search.check import check_facts, facts_problems, load
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import DEFAULT_SCHEMES, Spaces, registered
from kdsearch.students import STUDENTS
from kdsearch.students.base import EncoderShape, InputShape
from kdsearch.students.building import build_student

VAIN = Path(__file__).parent / "vain"
FILES = sorted(VAIN.glob("*.yaml"))
EVERYTHING = Facts(
    num_labels=2,
    pools=("train", "unlabelled", "augmented"),
    epochs=6,
    anchors=4,
    num_historical=2,
    teacher_width=32,
    teacher_layers=6,
    bert_teacher=True,
    vector_width=20,
    encoder_layers=2,
)
LOGITS_ALONE = {"teacher_width": None, "teacher_layers": None, "bert_teacher": False, "anchors": 0}
LACKS: Mapping[str, Mapping[str, Any]] = {
    "route_without_anchors": {"anchors": 0},
    "given_logits": LOGITS_ALONE,
    "hint_in_one_epoch": {"epochs": 1},
    "hint_too_deep": {},
    "pools_that_are_not_there": {"pools": ("train", "augmented")},
    "nothing_pretrained": {"vector_width": None, "encoder_layers": None},
    "no_historical_teachers": {"num_historical": 0},
    "every_eighth_layer": {},
    "frozen_too_deep": {},
}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_what_is_asked_for_in_vain_is_a_mistake(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(VAIN)
    file = load(Path(path.name), {})
    with pytest.raises(StudyFileError) as caught:
        check_facts(file, replace(EVERYTHING, **LACKS[path.stem]))
    assert render(caught.value) + "\n" == path.with_suffix(".txt").read_text(encoding="utf-8")
    assert all(problem.where and problem.where.line for problem in caught.value.problems)


def test_every_vain_wish_has_its_message() -> None:
    stems = {path.stem for path in FILES}
    assert stems == set(LACKS) == {path.stem for path in VAIN.glob("*.txt")}


@pytest.mark.parametrize("name", [name for name, lack in LACKS.items() if lack])
def test_the_same_wish_is_fine_where_the_study_has_it(name: str) -> None:
    check_facts(load(VAIN / f"{name}.yaml", {}), EVERYTHING)


# ---------------------------------------------------------------- whatever a study offers

LAYERS = st.integers(1, 8)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """What a study could offer."""
    there = draw(st.booleans())
    return Facts(
        num_labels=draw(st.sampled_from((2, 15))),
        pools=("train", *(pool for pool in ("unlabelled", "augmented") if draw(st.booleans()))),
        epochs=draw(st.integers(1, 7)),
        anchors=draw(st.integers(0, 9)) if there else 0,
        num_historical=draw(st.integers(0, 3)),
        teacher_width=32 if there else None,
        teacher_layers=draw(LAYERS) if there else None,
        bert_teacher=there and draw(st.booleans()),
        vector_width=draw(st.sampled_from((None, 12))),
        encoder_layers=draw(st.none() | LAYERS),
    )


def everything(spaces: Spaces) -> Plan:
    """A study of all students and schemes that it can have, every name of every parameter in it."""

    def named(known: Mapping[str, Space]) -> list[dict[str, Any]]:
        return [
            {"type": name, **{key: list(space[key].allowed) for key in space if free(space, key)}}
            for name, space in known.items()
        ]

    def free(space: Space, key: str) -> bool:
        param = space[key]
        possible = param.when is None or set(param.conditions) & set(space[param.when[0]].allowed)
        return bool(param.allowed and possible)

    base = {"version": 1, "name": "s", "data": {"train": "a", "validation": "b"}, "teacher": {"model": "m"}}
    chosen = {"students": named(spaces.students), "schemes": named(spaces.schemes)}
    return Plan(spec_from_json({**base, **chosen}), spaces)


def proposed(plan: Plan, offered: Facts, seed: int) -> TrialConfig:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
    return replace(plan.suggest(study.ask()), epochs=offered.epochs)


def within(space: Space, values: Mapping[str, Any]) -> bool:
    exist = {name for name, param in space.items() if param.exists(values)}
    return exist == set(values) and all(space[name].accepts(value) for name, value in values.items())


@settings(max_examples=60, deadline=None)
@given(offered=facts(), seed=st.integers(0, 2**32 - 1))
def test_a_proposed_scheme_can_be_run(offered: Facts, seed: int) -> None:
    spaces = registered(offered)
    plan = everything(spaces)
    assert facts_problems(plan.spec, spaces, offered) == []
    config = proposed(plan, offered, seed)
    assert SCHEMES[config.scheme].refusal(offered) is None
    assert within(spaces.schemes[config.scheme], config.scheme_params)
    setting = Setting(
        epochs=offered.epochs,
        pools=offered.pools,
        rows_per_epoch=10,
        anchors=offered.anchors,
        historical_weights=(1.0,) * offered.num_historical,
        student_width=4,
        teacher_width=offered.teacher_width or 0,
    )
    stages = build_scheme(config.scheme, config.scheme_params).stages(setting)
    assert sum(stage.epochs for stage in stages) == offered.epochs
    assert all(stage.epochs > 0 and set(stage.pools) <= set(offered.pools) for stage in stages)
    needs = {name for stage in stages for name in stage.needs}
    assert needs <= available(offered)


def available(offered: Facts) -> set[str]:
    """Every signal that such a study can give."""
    hidden = {hidden_signal(layer) for layer in range(1, (offered.teacher_layers or 0) + 1)}
    anchors = {anchor_signal(number) for number in range(1, offered.anchors + 1)}
    live = {LIVE, TRAJECTORY} if offered.trainable_teacher else set()
    return {"teacher"} | hidden | anchors | live | ({HISTORICAL} if offered.num_historical else set())


@settings(max_examples=40, deadline=None)
@given(offered=facts(), seed=st.integers(0, 2**32 - 1))
def test_a_proposed_student_can_be_built(offered: Facts, seed: int) -> None:
    spaces = registered(offered)
    config = proposed(everything(spaces), offered, seed)
    params = config.student_params
    assert STUDENTS[config.student].refusal(offered) is None
    assert within(spaces.students[config.student], params)
    widths = {"teacher": offered.teacher_width, "vectors": offered.vector_width}
    depths = {
        "teacher": offered.teacher_layers if offered.bert_teacher else None,
        "checkpoint": offered.encoder_layers,
    }
    layers = depths.get(str(params.get("init")))
    shape = InputShape(
        vocab_size=12,
        pad_id=0,
        num_tokens=7,
        max_length=9,
        num_labels=offered.num_labels,
        embedding_width=widths.get(str(params.get("embedding"))) or 0,
        encoder=None if layers is None else encoder_of(layers),
    )
    student = build_student(config.student, params, shape, None)
    assert student.shape.num_labels == offered.num_labels


def encoder_of(layers: int) -> EncoderShape:
    return EncoderShape(
        hidden=32,
        layers=layers,
        heads=2,
        intermediate=40,
        max_positions=16,
        layer_norm_eps=1e-12,
        activation="gelu",
    )


@given(offered=facts())
def test_a_study_without_wishes_always_has_the_default_schemes_and_all_students(offered: Facts) -> None:
    spaces = registered(offered)
    assert set(DEFAULT_SCHEMES) <= set(spaces.schemes)
    assert set(spaces.schemes) | set(spaces.refused_schemes) == set(SCHEMES)
    assert set(spaces.students) | set(spaces.refused_students) == set(STUDENTS)
    assert not set(spaces.students) & set(spaces.refused_students)


@given(offered=facts())
def test_narrowing_only_narrows(offered: Facts) -> None:
    whole, part = registered(), registered(offered)
    for known, narrowed in ((whole.students, part.students), (whole.schemes, part.schemes)):
        for name, space in narrowed.items():
            assert list(space) == list(known[name])
            for key, param in space.items():
                wide = known[name][key]
                assert param.low >= wide.low
                assert set(param.allowed) <= set(wide.allowed)
                assert all(param.accepts(value) for value in param.narrow(param.default).values())


def test_facts_survive_json() -> None:
    assert Facts.from_json(EVERYTHING.to_json()) == EVERYTHING
