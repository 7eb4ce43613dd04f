"""The stages of every scheme: pools, signals, epochs, and how a teacher is trained beside the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kdsearch.core.space import Scalar
from kdsearch.core.specteacher import JointSpec
from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import (
    LIVE,
    TEACHER,
    Joint,
    Setting,
    Stage,
    Term,
    anchor_signal,
    distil_terms,
    hard_term,
    hidden_signal,
)

SETTING = Setting(
    epochs=6,
    pools=("train", "unlabelled", "augmented"),
    rows_per_epoch=1000,
    anchors=4,
    historical_weights=(2.0, 1.0),
    student_width=24,
    teacher_width=384,
    joint=JointSpec(epochs=2, learning_rate=3e-5),
    seed=1,
)
KL: dict[str, Scalar] = {"loss": "kl", "temperature": 2.0, "lambda": 0.5}


def stages(name: str, params: Mapping[str, Scalar], **changed: Any) -> tuple[Stage, ...]:
    return build_scheme(name, params).stages(replace(SETTING, **changed))


def test_the_control_never_asks_the_teacher_and_sees_labelled_rows_only() -> None:
    (stage,) = stages("none", {})
    assert not stage.needs and stage.pools == ("train",)


def test_a_trial_from_before_there_was_a_choice_of_pools_keeps_all_of_them() -> None:
    (stage,) = stages("offline", KL, pools=("train", "unlabelled"))
    assert stage.pools == ("train", "unlabelled")


def test_pools_are_those_that_were_asked_for() -> None:
    for name in ("offline", "multi_teacher", "hint", "route"):
        more = {"hint_epochs": 2, "layer": 3} if name == "hint" else {}
        built = stages(name, {**KL, **more, "pools": "train+augmented"})
        assert {stage.pools for stage in built} == {("train", "augmented")}


@pytest.mark.parametrize("hint_epochs", [1, 2, 5])
def test_hint_epochs_count(hint_epochs: int) -> None:
    hints, logits = stages("hint", {**KL, "hint_epochs": hint_epochs, "layer": 3})
    assert (hints.epochs, logits.epochs) == (hint_epochs, 6 - hint_epochs)
    assert (hints.scored, logits.scored) == (False, True)
    assert hints.needs == {hidden_signal(3)} and logits.needs == {TEACHER}
    assert [term.learned is None for term in (*hints.terms, *logits.terms)] == [False, True, True]


@pytest.mark.parametrize("epochs", range(1, 13))
@pytest.mark.parametrize("anchors", range(1, 13))
def test_a_route_visits_anchors_in_order_and_splits_the_epochs_evenly(epochs: int, anchors: int) -> None:
    built = stages("route", KL, epochs=epochs, anchors=anchors)
    visited = [int(next(iter(stage.needs)).removeprefix("anchor:")) for stage in built]
    share = [stage.epochs for stage in built]
    steps = [b - a for a, b in zip([0, *visited], visited, strict=False)]
    assert len(visited) == min(epochs, anchors) and visited[-1] == anchors
    assert min(steps) >= 1 and max(steps) - min(steps) <= 1, "evenly chosen, in order of training"
    assert sum(share) == epochs and min(share) >= 1 and max(share) - min(share) <= 1
    assert share[-1] == max(share), "what is left over goes to the best teacher"
    assert len({stage.name for stage in built}) == len(built)


def test_one_anchor_is_offline_but_for_where_the_logits_come_from() -> None:
    (route,), (offline,) = stages("route", KL, anchors=1), stages("offline", KL)
    assert route.needs == {anchor_signal(1)} and offline.needs == {TEACHER}
    alike = [
        (s.pools, s.epochs, s.rows_per_epoch, s.scored, s.then, [(t.name, t.weight) for t in s.terms])
        for s in (route, offline)
    ]
    assert alike[0] == alike[1]


# ---------------------------------------------------------------- the teacher in training


def test_a_mutual_teacher_is_trained_as_the_study_says() -> None:
    mutual: dict[str, Scalar] = {"variant": "mutual", "temperature": 2.0, "lambda": 0.5, "mu": 0.5}
    prokt: dict[str, Scalar] = {"variant": "prokt", "temperature": 2.0, "teacher_mix": 0.3}
    for params in (mutual, prokt):
        (stage,) = stages("joint_mutual", params)
        assert stage.joint == Joint(passes=2, learning_rate=3e-5, schedule="linear", clip="own")


def test_prokt_takes_turns() -> None:
    (stage,) = stages("joint_mutual", {"variant": "prokt", "temperature": 2.0, "teacher_mix": 0.3})
    assert [term.name for term in stage.terms] == ["teacher_hard", "teacher_soft"]
    assert [(term.name, term.weight) for term in stage.then] == [("soft", 1.0)]


def test_summed_losses_have_one_rate_and_one_clip_unless_told_otherwise() -> None:
    params: dict[str, Scalar] = {"temperature": 2.0, "lambda": 0.5, "learning_rate": 2e-4}
    (stage,) = stages("joint_sum", params)
    assert stage.joint == Joint(
        passes=2, learning_rate=2e-4, student_learning_rate=2e-4, schedule="student", clip="global"
    )


@pytest.mark.parametrize("clip", ["own", "global"])
def test_rates_and_clip_of_summed_losses_are_ablated_apart(clip: str) -> None:
    own: dict[str, Scalar] = {"temperature": 2.0, "lambda": 0.5, "rates": "own", "clip": clip}
    shared: dict[str, Scalar] = {**own, "rates": "shared", "learning_rate": 2e-4}
    (with_own,), (with_shared,) = stages("joint_sum", own), stages("joint_sum", shared)
    assert with_own.joint is not None and with_shared.joint is not None
    assert with_own.joint.clip == with_shared.joint.clip == clip
    assert (with_own.joint.learning_rate, with_own.joint.student_learning_rate) == (3e-5, None)


# ---------------------------------------------------------------- what cannot be


def test_a_term_of_weight_zero_is_left_out() -> None:
    at = {lam: distil_terms(loss="mse", temperature=None, lambda_soft=lam) for lam in (0.0, 0.5, 1.0)}
    assert {lam: [t.name for t in terms] for lam, terms in at.items()} == {
        0.0: ["hard"],
        0.5: ["hard", "soft"],
        1.0: ["soft"],
    }
    (isolated,) = stages("joint_isolated", {**KL, "lambda": 0.0})
    assert [t.name for t in isolated.terms] == ["hard"] and not isolated.needs
    (mutual,) = stages("joint_mutual", {"temperature": 2.0, "lambda": 0.5, "mu": 0.0})
    assert [t.name for t in mutual.terms] == ["hard", "soft", "teacher_hard"]


IMPOSSIBLE: list[tuple[str, dict[str, Scalar], dict[str, Any], str]] = [
    ("offline", {"loss": "mse", "temperature": 2.0, "lambda": 0.5}, {}, "no temperature"),
    ("offline", {"loss": "kl", "lambda": 0.5}, {}, "needs a temperature"),
    ("offline", {"loss": "mse", "lambda": 1.5}, {}, "between 0 and 1"),
    ("offline", {**KL, "pools": "train+unlabelled"}, {"pools": ("train",)}, "no pool 'unlabelled'"),
    ("joint_isolated", {"loss": "mse", "lambda": -0.1}, {}, "between 0 and 1"),
    ("joint_mutual", {"temperature": 2.0, "lambda": 0.5}, {}, "mu None"),
    ("joint_mutual", {"temperature": 2.0, "mu": 0.5}, {}, "lambda None"),
    ("joint_mutual", {"temperature": 2.0, "lambda": 0.5, "mu": 1.5}, {}, "mu 1.5"),
    ("joint_mutual", {"variant": "prokt", "temperature": 2.0}, {}, "teacher_mix None"),
    ("joint_sum", {"temperature": 2.0, "lambda": 0.5}, {}, "need a learning rate"),
    (
        "joint_sum",
        {"temperature": 2.0, "lambda": 0.5, "rates": "own", "learning_rate": 0.1},
        {},
        "no shared learning rate",
    ),
    ("multi_teacher", KL, {"historical_weights": ()}, "no historical teachers"),
    ("multi_teacher", {"loss": "mse", "temperature": 2.0, "lambda": 0.5}, {}, "no temperature"),
    ("hint", {**KL, "hint_epochs": 6, "layer": 1}, {}, "6 hint epochs of 6"),
    ("hint", {**KL, "hint_epochs": 0, "layer": 1}, {}, "0 hint epochs"),
    ("hint", {**KL, "hint_epochs": 1, "layer": 1}, {"teacher_width": 0}, "width 0"),
    ("route", KL, {"anchors": 0}, "no anchors"),
]


@pytest.mark.parametrize(("name", "params", "changed", "match"), IMPOSSIBLE)
def test_impossible_parameters_are_refused(
    name: str, params: dict[str, Scalar], changed: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        stages(name, params, **changed)


def test_a_stage_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Stage(name="empty", pools=("train",), terms=(), epochs=1, rows_per_epoch=1)
    nothing = replace(hard_term(), weight=0.0)
    with pytest.raises(ValueError, match="above 0"):
        Stage(name="no", pools=("train",), terms=(hard_term(),), then=(nothing,), epochs=1, rows_per_epoch=1)


def test_a_live_teacher_goes_with_terms_that_need_it() -> None:
    live = Term(name="soft", weight=1.0, loss=lambda seen: seen.logits_BC.sum(), needs=(LIVE,))
    joint = Joint(passes=1, learning_rate=1e-3)
    for term, given in ((live, None), (hard_term(), joint)):
        with pytest.raises(ValueError, match="live teacher"):
            Stage(name="x", pools=("train",), terms=(term,), epochs=1, rows_per_epoch=1, joint=given)
