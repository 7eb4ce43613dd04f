"""Fine-tuning a teacher is the same loop with the hard term alone: resumable, learning, best by loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from kdsearch.distill.stage import Stage, hard_term
from kdsearch.teachers.source import TeacherModule, freeze_all_but_last, load_encoder_for

LABELS = ("ham", "spam", "odd")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(config).save_pretrained(folder)
    return folder


def anchors(count: int) -> tuple[Stage, ...]:
    terms = (hard_term(),)
    return (Stage(name="finetune", pools=("train",), terms=terms, epochs=count, rows_per_epoch=60),)


def teacher(encoder: Path) -> TeacherModule:
    return load_encoder_for(encoder, LABELS, seed=1)


def test_fine_tuning_resumes_from_an_anchor(problem, encoder: Path) -> None:
    settings = {"select": "nll", "learning_rate": 5e-3}
    whole = problem.fit(teacher(encoder), anchors(3), **settings)
    torch.manual_seed(77)
    resumed = problem.fit(teacher(encoder), anchors(3), resume=problem.checkpoints[0], **settings)
    assert all(torch.equal(whole.best_state[k], resumed.best_state[k]) for k in whole.best_state)
    assert [r.rows_seen for r in problem.reports[:3]] == [60, 120, 180]
    best = min(problem.reports[:3], key=lambda r: r.scores.nll)
    assert (
        whole.best_epoch == best.epoch
        and problem.reports[2].losses["total"] < problem.reports[0].losses["total"]
    )


def test_at_each_anchor_the_module_holds_its_weights(problem, encoder: Path) -> None:
    module, kept = teacher(encoder), []

    def keep(report, checkpoint) -> None:
        problem.keep(report, checkpoint)
        kept.append({k: v.clone() for k, v in module.state_dict().items()})

    report = problem.fit(module, anchors(2), on_epoch=keep, select="nll")
    assert any(not torch.equal(kept[0][k], kept[1][k]) for k in kept[0])
    assert all(torch.equal(kept[report.best_epoch - 1][k], report.best_state[k]) for k in report.best_state)


def test_layers_below_the_last_stand_still(problem, encoder: Path) -> None:
    module = teacher(encoder)
    freeze_all_but_last(module, 1)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    problem.fit(module, anchors(1))
    moved = {k for k, v in module.state_dict().items() if not torch.equal(before[k], v)}
    assert moved and not any("embeddings" in name or ".layer.0." in name for name in moved)
    assert any(".layer.1." in name for name in moved) and "classifier.classifier.weight" in moved
