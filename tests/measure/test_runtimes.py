"""Runtimes answer as the module does; torch's exporter serves modules that do not draw themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdsearch.core.spec import LatencySpec
from kdsearch.measure.runtimes import RUNTIMES, onnx
from kdsearch.measure.runtimes.base import Runner
from kdsearch.students.base import InputShape
from kdsearch.students.building import build_student

SHAPE = InputShape(vocab_size=60, num_tokens=60, num_labels=3, max_length=12, pad_id=0)
SPECS = {
    "onnx": LatencySpec(),
    "torch": LatencySpec.model_construct(device="cpu", runtime="torch", threads=1, batch_size=1),
}


class Answer(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Bert(nn.Module):
    """A transformers classifier as a teacher is: no graph of its own, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=12,
            num_labels=3,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Answer:
        logits = self.bert(input_ids=ids, attention_mask=mask).logits
        return Answer(logits, logits)


def assert_runs_like(module: nn.Module, run: Runner) -> None:
    rng = np.random.default_rng(0)
    for rows, columns in ((1, 1), (1, 7), (2, 2), (7, 5), (32, 12)):
        ids = rng.integers(0, 60, (rows, columns))
        mask = (np.arange(columns) < rng.integers(1, columns + 1, rows)[:, None]).astype(np.int64)
        with torch.no_grad():
            expected = module.eval()(torch.from_numpy(ids), torch.from_numpy(mask))[0].numpy()
        found = run(ids, mask)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_runtime_answers_as_the_module_does(name: str) -> None:
    params = {"filters": 8, "kernel_sizes": (2, 3), "embed_dim": 8, "dropout": 0.5}
    student = build_student("textcnn", params, SHAPE, None)
    prepared = RUNTIMES[name].prepare(student, SPECS[name])
    assert prepared.num_params == sum(p.numel() for p in student.parameters())
    assert prepared.size_mb > prepared.num_params * 4e-6
    assert_runs_like(student, prepared.run)


@pytest.fixture(scope="module")
def exported() -> tuple[nn.Module, bytes]:
    module = Bert().train()
    with torch.random.fork_rng():
        return module, onnx.to_onnx(module)


def test_the_exporter_serves_any_shape_and_padding(exported: tuple[nn.Module, bytes]) -> None:
    module, model = exported
    assert_runs_like(module, onnx.load(model, threads=1))


def test_the_exporter_is_silent_and_leaves_the_module_in_its_mode(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Bert().train()
    onnx.to_onnx(module)
    assert module.training
    assert all(part.training for part in module.modules())
    assert capfd.readouterr() == ("", "")


def test_a_module_that_cannot_draw_itself_may_say_so(exported: tuple[nn.Module, bytes]) -> None:
    module, model = exported
    module.onnx_model = lambda: None
    try:
        assert abs(len(onnx.to_onnx(module)) - len(model)) < 0.05 * len(model)
    finally:
        del module.onnx_model


def test_threads_are_what_was_asked(
    exported: tuple[nn.Module, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    seen = []
    session = onnxruntime.InferenceSession

    def spy(model: bytes, options: onnxruntime.SessionOptions, **more: object) -> object:
        seen.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return session(model, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    onnx.load(exported[1], threads=2)
    assert seen == [(2, 1)]
