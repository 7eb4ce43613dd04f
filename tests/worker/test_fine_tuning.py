"""How a study's teacher is made: the rate, what is smoothed, which anchor teaches, what is found again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from kdsearch.core.canonical import sha256_of
from kdsearch.core.records import Scores
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.distill import fit as fit_module
from kdsearch.distill.stage import Seen, Stage
from kdsearch.measure import quality
from kdsearch.store import cache, preparations, reads
from kdsearch.store.connect import Store
from kdsearch.worker import teacher, tuning
from kdsearch.worker.context import Stopped
from kdsearch.worker.teacher import best_anchors, recipe_key
from kdsearch.worker.unfinished import Anchor

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]
Make = Callable[..., Any]


def test_the_anchor_of_least_loss_teaches_even_where_a_later_one_is_more_often_right(
    store: Store, write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Scores] = []

    def score(*args: Any, **kwargs: Any) -> Scores:
        """Quality rises from anchor to anchor, and the second has the least loss."""
        n = len(scored)
        scored.append(replace(quality.score(*args, **kwargs), quality=0.1 * n, nll=[3.0, 1.0, 2.0][n % 3]))
        return scored[-1]

    monkeypatch.setattr(fit_module, "score", score)
    finish(write_study(trials=1, replace=("anchors: 2", "anchors: 3")))
    sha256 = reads.study(store.engine, "tiny").prepared
    assert sha256 is not None
    prepared = Prepared.load(store.blobs, sha256)
    assert len(set(prepared.anchors)) == 2, "the third has no part in the route"
    assert prepared.teacher == prepared.anchors[-1] == prepared.best["loss"]


def test_the_rate_falls_to_nothing_while_the_students_keep_theirs(
    write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def note(self: torch.optim.AdamW) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    finish(write_study(trials=1, epochs=1))
    teacher, student = rates[:6], rates[6:]  # 160 rows: 2 anchors of 3 steps, then 5 steps
    assert len(student) == 5
    assert len(set(student)) == 1
    assert 1e-3 >= teacher[0] > teacher[1] > teacher[2] > teacher[3] > teacher[4] > teacher[5] > 0
    assert teacher[5] < 2e-4


def test_it_says_how_far_it_is_between_two_anchors(
    write_study: Write, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tuning, "MENTION_S", 0.0)
    monkeypatch.setattr(preparations, "mention", lambda engine, lease, text: said.append(text))
    finish(write_study(trials=1, epochs=1))
    shares = [float(text.rpartition(": ")[2].partition("%")[0]) for text in said]
    assert shares == sorted(shares) and shares[-1] == 100
    assert len(set(shares)) >= 4  # 160 rows in batches of 32, halted by no checkpoint
    assert said[0] == f"fine-tuning the teacher: {shares[0]:.0f}% of the rows seen"


# ---------------------------------------------------------------- which anchor teaches


@pytest.fixture
def trained_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every fine-tuning has a second anchor of least loss and a third that is most often right."""
    trainings: list[int] = []

    def score(*args: Any, **kwargs: Any) -> Scores:
        n = trainings[-1] % 3
        trainings[-1] += 1
        return replace(quality.score(*args, **kwargs), nll=[3.0, 1.0, 2.0][n], accuracy=[0.5, 0.6, 0.9][n])

    def fit(*args: Any, **kwargs: Any) -> Any:
        trainings.append(0)
        return fit_module.fit(*args, **kwargs)

    monkeypatch.setattr(fit_module, "score", score)
    monkeypatch.setattr(tuning, "fit", fit)
    return trainings


THREE = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "anchors": 3}


def test_the_best_by_loss_and_by_accuracy_are_kept_and_either_may_teach(
    teacher_study: Make, trained_once: list[int]
) -> None:
    by_loss = teacher_study(finetune=THREE).prepare()
    by_accuracy = teacher_study(finetune={**THREE, "select": "accuracy"}).prepare()
    assert len(trained_once) == 1, "what is selected is no reason to train again"
    assert by_loss.final == by_loss.best["loss"] == by_loss.anchors[-1]
    assert by_accuracy.final == by_accuracy.best["accuracy"] == by_loss.best["accuracy"]
    assert by_loss.final != by_accuracy.final
    assert (by_loss.accuracy, by_accuracy.accuracy) == (0.6, 0.9)
    assert by_loss.anchors == by_accuracy.anchors and len(by_loss.anchors) == 2
    assert by_loss.seconds is not None and by_loss.seconds > 0


def test_ties_go_by_the_other_figure_and_then_to_the_earlier() -> None:
    anchors = [Anchor(tree=t, nll=n, accuracy=a) for t, n, a in [("1", 0.3, 0.9), ("2", 0.2, 0.8)]]
    anchors += [Anchor(tree=t, nll=n, accuracy=a) for t, n, a in [("3", 0.2, 0.9), ("4", 0.2, 0.9)]]
    assert {by: anchor.tree for by, anchor in best_anchors(anchors).items()} == {"loss": "3", "accuracy": "3"}


def test_a_teacher_that_the_first_version_cached_is_used_again(
    teacher_study: Make, trained_once: list[int]
) -> None:
    study = teacher_study(finetune=THREE)
    trees = study.prepare()
    engine = study.context.store.engine
    old = teacher_study(finetune={**THREE, "epochs": 4})
    meta = {"anchors": [*trees.anchors, trees.best["accuracy"]], "accuracy": 0.6}
    cache.add(engine, "teacher", recipe_key(old.context, old.dataset), trees.final, meta)
    found = old.prepare()
    assert len(trained_once) == 1
    assert (found.final, found.anchors, found.accuracy) == (trees.final, trees.anchors, 0.6)
    assert (found.best, found.seconds) == ({"loss": trees.final}, None)


# ---------------------------------------------------------------- recipes


def test_a_recipe_without_newer_keys_has_the_key_it_always_had(teacher_study: Make) -> None:
    study = teacher_study()
    spec = study.context.spec
    recipe = spec.teacher.model_dump(mode="json", exclude={"model"}, exclude_defaults=True)
    always = {"teacher": None, "recipe": recipe, "labels": ("bad", "good"), "data": "0 unlabelled", "seed": 5}
    assert recipe_key(study.context, study.dataset) == sha256_of({**always, "objective": "accuracy"})


def test_only_what_changes_the_teacher_changes_its_recipe(teacher_study: Make) -> None:
    def key(**teacher: object) -> str:
        study = teacher_study(**teacher)
        return recipe_key(study.context, study.dataset)

    plain = {"epochs": 2, "anchors": 2}
    assert key(finetune=plain) == key(finetune={**plain, "label_smoothing": 0.0, "select": "accuracy"})
    assert key(finetune=plain) == key(finetune=plain, joint={"epochs": 7})
    others = [key(finetune={**plain, "label_smoothing": 0.1}), key(finetune=plain, pretrain={}), key()]
    assert len({key(finetune=plain), *others}) == 4


def test_labels_are_smoothed_as_much_as_asked(teacher_study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[Stage] = []

    def fit(module: object, given: Sequence[Stage], **_: object) -> None:
        stages.extend(given)
        raise Stopped

    monkeypatch.setattr(tuning, "fit", fit)
    logits, labels = torch.tensor([[2.0, -1.0], [0.5, 0.25]]), torch.tensor([0, 1])
    for smoothing in (0.0, 0.25):
        with pytest.raises(Stopped):
            teacher_study(finetune={"label_smoothing": smoothing}).prepare()
        loss = stages[-1].terms[0].loss(Seen(logits, logits, labels, {}))
        assert loss.item() == pytest.approx(cross_entropy(logits, labels, label_smoothing=smoothing).item())


# ---------------------------------------------------------------- letting go, and going on


def test_a_teacher_taken_over_in_the_middle_is_the_same_teacher(
    teacher_study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = teacher_study()
    with pytest.raises(Stopped):
        first.prepare(epochs=1)
    assert first.said[0].startswith("fine-tuning the teacher: 1 of 2 anchors, accuracy 0.")
    second = teacher_study()
    trees = second.prepare(unfinished=first.kept[-1])
    assert len(second.kept) == 1, "the anchor that was finished is not trained again"
    monkeypatch.setattr(teacher, "KIND", "teacher elsewhere")  # so that the cache knows nothing of it
    alone = teacher_study().prepare()
    assert (trees.final, trees.anchors, trees.accuracy) == (alone.final, alone.anchors, alone.accuracy)
