"""The int8 graph: smaller, measured on its own, one text at a time, and told apart from what was searched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdsearch.core.errors import NotFoundError, UsageError
from kdsearch.export.bundle import export_student
from kdsearch.export.card import card
from kdsearch.export.formats import FORMATS, checked, parse
from kdsearch.export.manifest import check_manifest, read_manifest
from kdsearch.export.predict import Predictor
from kdsearch.export.quantise import operators, quantise
from kdsearch.measure.runtimes.onnx import load, to_onnx
from kdsearch.students import STUDENTS
from kdsearch.students.base import InputShape
from kdsearch.students.building import build_student

SHAPE = InputShape(vocab_size=3000, num_tokens=2000, num_labels=3, max_length=16, pad_id=0)
PARAMS = {
    "bag": {"embed_dim": 32, "hidden": 32, "dropout": 0.1},
    "textcnn": {"filters": 16, "kernel_sizes": (2, 3), "embed_dim": 32, "dropout": 0.1},
    "bilstm": {"hidden": 16, "layers": 2, "embed_dim": 32, "pooling": "attention", "dropout": 0.1},
    "bert_small": {"layers": 1, "hidden": 32, "dropout": 0.1},
}


def graphs(name: str) -> tuple[bytes, bytes]:
    exact = to_onnx(build_student(name, PARAMS[name], SHAPE, None, seed=1).eval())
    return exact, quantise(exact)


def batch(rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    ids = rng.integers(1, SHAPE.vocab_size, (rows, length))
    lengths = rng.integers(1, length + 1, rows)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return ids * mask, mask


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_becomes_smaller_and_stays_close(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    exact, small = graphs(name)
    assert len(small) < 0.5 * len(exact)
    ids, mask = batch(6, 12)
    a, b = load(exact, threads=1)(ids, mask), load(small, threads=1)(ids, mask)
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max() + 0.02
    assert capfd.readouterr() == ("", ""), "onnxruntime's advice is for whoever calls it by hand"


def test_what_is_quantised() -> None:
    found = {name: operators(graphs(name)[1]) for name in STUDENTS}
    assert all("DequantizeLinear" in kinds for kinds in found.values()), "the embedding is most of the bytes"
    assert found["textcnn"]["ConvInteger"] == 2 and found["bilstm"]["DynamicQuantizeLSTM"] == 2
    assert found["bert_small"]["MatMulInteger"] == 6
    assert "MatMulInteger" not in found["textcnn"], "the last layer stays as it is"


def test_int8_is_measured_on_its_own(world, tmp_path: Path) -> None:
    number = world.complete("textcnn")
    to = tmp_path / "out"
    made = export_student(
        world.store, world.study, world.trial(number), to=to, formats=("onnx-int8", "hf", "onnx")
    )
    assert made.formats == ("hf", "onnx", "onnx-int8") and made == read_manifest(to) == check_manifest(to)
    found = made.quantised
    assert found is not None and found.validation.num_rows == 40
    assert found.latency.size_mb == (to / "onnx/model_int8.onnx").stat().st_size / 1e6
    assert found.latency.profile == found.float_latency.profile != made.latency.student.profile
    texts = world.dataset.pools["validation"].texts
    exact, small = (Predictor.open(to, runtime=name).logits(texts) for name in ("onnx", "onnx-int8"))
    assert np.abs(exact - small).max() == pytest.approx(found.largest_diff, rel=1e-3)
    assert found.same_label == np.mean(exact.argmax(1) == small.argmax(1))
    quality = world.scores(small).quality
    assert found.validation.scores.quality == quality
    assert found.difference[0] == pytest.approx(quality - made.metrics.validation.scores.quality)
    text = (to / "README.md").read_text()
    assert "## int8" in text and "not the hardware profile of the study" in text
    assert json.loads((to / "example_inputs.json").read_text())["tolerance"]["int8"] >= 0.01


def test_a_text_s_int8_logits_do_not_depend_on_its_neighbours(world, tmp_path: Path) -> None:
    to = tmp_path / "out"
    number = world.complete("bilstm")
    export_student(world.store, world.study, world.trial(number), to=to, formats=("onnx-int8",))
    assert not (to / "config.json").exists() and not (to / "onnx/model.onnx").exists()
    predictor, texts = Predictor.open(to), list(world.dataset.pools["validation"].texts)
    together = predictor.logits(texts)
    assert np.array_equal(together[3], predictor.logits([texts[3]])[0])
    assert np.array_equal(together[::-1], predictor.logits(texts[::-1]))
    with pytest.raises(NotFoundError, match="no graph for onnx"):
        Predictor.open(to, runtime="onnx")


@pytest.mark.parametrize(
    ("ratio", "difference", "words"),
    [
        (0.5, (0.0, -0.1, 0.1), "2.00 times faster than float32 at p50 here, and its quality is not told"),
        (2.0, (-0.2, -0.3, -0.1), "2.00 times slower than float32 at p50 here, and its quality is worse"),
        (1.0, (0.2, 0.1, 0.3), "as fast as float32 at p50 here, and its quality is better"),
    ],
)
def test_the_card_says_plainly_what_int8_is_worth(world, ratio, difference, words, tmp_path: Path) -> None:
    number = world.complete("bag")
    made = export_student(
        world.store, world.study, world.trial(number), to=tmp_path / "out", formats=("onnx-int8",)
    )
    found = made.quantised
    slow = replace(found.latency, p50_ms=found.float_latency.p50_ms * ratio)
    changed = replace(made, quantised=replace(found, latency=slow, difference=difference))
    assert words in card(changed)


def test_formats_are_a_comma_list() -> None:
    assert parse("onnx, hf") == ("hf", "onnx") and parse(",".join(FORMATS)) == tuple(FORMATS)
    assert checked(["onnx", "onnx"]) == ("onnx",)
    with pytest.raises(UsageError, match="onnx-int9") as caught:
        parse("hf,onnx-int9")
    assert "onnx-int8" in caught.value.hint
    with pytest.raises(UsageError, match="no export format"):
        parse(" , ")
