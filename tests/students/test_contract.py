"""What every registered student must keep to, with every value that a parameter may have."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdsearch.core.errors import UsageError
from kdsearch.core.space import Param, Range, Scalar
from kdsearch.students import STUDENTS, base
from kdsearch.students.base import EncoderShape, InputShape, Student
from kdsearch.students.building import (
    architecture_key,
    build_student,
    load_student,
    own_part,
    save_student,
    wants,
)

ENCODER = EncoderShape(
    hidden=12,
    layers=6,
    heads=3,
    intermediate=20,
    max_positions=40,
    layer_norm_eps=1e-5,
    activation="gelu_new",
)
SHAPE = InputShape(
    vocab_size=120, num_tokens=50, num_labels=3, max_length=21, pad_id=0, embedding_width=6, encoder=ENCODER
)
ID_TABLE = np.random.default_rng(0).integers(2, SHAPE.num_tokens, SHAPE.vocab_size)
Params = dict[str, Scalar]


def values_of(param: Param) -> tuple[Scalar, ...]:
    return param.allowed or param.default.values()


def default_params(name: str, chosen: Params | None = None) -> Params:
    """The first value of every parameter that exists beside the chosen ones, and nothing dropped."""
    values: Params = {}
    for key, param in STUDENTS[name].SPACE.items():
        if param.exists(values):
            values[key] = (chosen or {}).get(key, param.default.values()[0])
    return values


def beside(name: str, key: str) -> list[Params]:
    """Every choice of other parameters that makes this one exist."""
    param = STUDENTS[name].SPACE[key]
    if param.when is None:
        return [{}]
    other = param.when[0]
    return [{**before, other: value} for value in param.conditions for before in beside(name, other)]


def parameters(name: str) -> list[tuple[str, Param, Params]]:
    """Each parameter, and all the others in each setting where it exists."""
    space = STUDENTS[name].SPACE
    return [(key, space[key], default_params(name, chosen)) for key in space for chosen in beside(name, key)]


def variations() -> list[tuple[str, Params]]:
    """Every student by default, and with one parameter changed, for each value in each setting."""
    found: list[tuple[str, Params]] = []
    for name in STUDENTS:
        for key, param, setting in parameters(name):
            changed = [(name, default_params(name, {**setting, key: value})) for value in values_of(param)]
            found += [variation for variation in changed if variation not in found]
    return [*found, ("bilstm", {**default_params("bilstm"), "layers": 2, "pooling": "last"})]


def label(variation: tuple[str, Params]) -> str:
    name, params = variation
    default = default_params(name)
    return " ".join([name, *(f"{k}={v}" for k, v in params.items() if default.get(k) != v)])


every_student = pytest.mark.parametrize("name", list(STUDENTS))
every_variation = pytest.mark.parametrize("variation", variations(), ids=label)


def build(name: str, params: Params | None = None, seed: int = 3, num_labels: int = 3) -> Student:
    shape = replace(SHAPE, num_labels=num_labels)
    return build_student(name, params or default_params(name), shape, ID_TABLE, seed=seed)


def batch(rows: int, columns: int, *, padded: bool, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random texts; where padded, of every length from 0 on, and with arbitrary ids behind their end."""
    rng = np.random.default_rng((seed, rows, columns))
    ids = torch.from_numpy(rng.integers(0, SHAPE.vocab_size, (rows, columns)))
    lengths = torch.from_numpy(rng.integers(0, columns + 1, rows)) if padded else torch.full((rows,), columns)
    return ids, (torch.arange(columns) < lengths.unsqueeze(1)).long()


def logits_of(student: nn.Module, ids: Tensor, mask: Tensor) -> np.ndarray:
    with torch.no_grad():
        return student.eval()(ids, mask).logits_BC.numpy()


def train(student: nn.Module, steps: int, rate: float = 1e-2) -> float:
    """Learn 16 random texts by heart; returns the last loss."""
    ids, mask = batch(16, 9, padded=True, seed=7)
    mask[:, 0] = 1
    labels = torch.arange(16) % student(ids, mask).logits_BC.shape[1]
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    student.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(student(ids, mask).logits_BC, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def assert_onnx_equals_forward(student: Student, rows: tuple[int, ...] = (1, 2, 7)) -> None:
    session = onnxruntime.InferenceSession(student.onnx_model())
    for num, columns, padded in product(rows, (1, 2, 5, SHAPE.max_length), (False, True)):
        ids, mask = batch(num, columns, padded=padded)
        found = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        np.testing.assert_allclose(found, logits_of(student, ids, mask), atol=1e-4, rtol=0)


@every_variation
def test_onnx_equals_forward_before_and_after_training(variation: tuple[str, Params]) -> None:
    student = build(*variation)
    assert_onnx_equals_forward(student)
    untrained = logits_of(student, *batch(4, 6, padded=False))
    train(student, steps=3)
    assert np.abs(logits_of(student, *batch(4, 6, padded=False)) - untrained).max() > 1e-3
    assert_onnx_equals_forward(student, rows=(7,))


TEXTS = st.lists(
    st.lists(st.integers(0, SHAPE.vocab_size - 1), max_size=SHAPE.max_length), min_size=1, max_size=5
)


@cache
def built(number: int) -> Student:
    return build(*variations()[number])


def padded(texts: list[list[int]], columns: int, filler: int) -> tuple[Tensor, Tensor]:
    """The texts side by side, with one arbitrary id behind their ends."""
    ids = torch.tensor([text + [filler] * (columns - len(text)) for text in texts])
    lengths = torch.tensor([len(text) for text in texts])
    return ids, (torch.arange(columns) < lengths.unsqueeze(1)).long()


@pytest.mark.parametrize("number", range(len(variations())), ids=lambda n: label(variations()[n]))
@given(texts=TEXTS, more=st.integers(0, 5), filler=st.integers(0, SHAPE.vocab_size - 1))
@settings(max_examples=10, deadline=None)
def test_padding_and_company_change_nothing(
    number: int, texts: list[list[int]], more: int, filler: int
) -> None:
    student = built(number)
    columns = min(SHAPE.max_length, max(1, *(len(text) for text in texts)) + more)
    together = logits_of(student, *padded(texts, columns, filler))
    for row, text in enumerate(texts):
        alone = logits_of(student, *padded([text], max(1, len(text)), 0))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5, rtol=0)


@every_variation
def test_an_empty_text_has_logits_that_no_padding_changes(variation: tuple[str, Params]) -> None:
    student = build(*variation)
    once = logits_of(student, *(torch.zeros(1, 1, dtype=torch.int64) for _ in range(2)))
    often = logits_of(student, *(torch.zeros(3, 8, dtype=torch.int64) for _ in range(2)))
    assert np.isfinite(once).all()
    np.testing.assert_allclose(often, np.repeat(once, 3, axis=0), atol=1e-6)


@every_variation
def test_every_weight_gets_a_gradient(variation: tuple[str, Params]) -> None:
    student = build(*variation).train()
    ids, mask = batch(16, SHAPE.max_length, padded=False)
    nn.functional.cross_entropy(student(ids, mask).logits_BC, torch.arange(16) % 3).backward()
    learning = {n: p.grad for n, p in student.named_parameters() if p.requires_grad}
    assert not [n for n, grad in learning.items() if grad is None or not grad.abs().sum() > 0]
    assert not [n for n, p in student.named_parameters() if n not in learning and p.grad is not None]


@every_student
@pytest.mark.parametrize("num_labels", [2, 15])
def test_any_number_of_classes(name: str, num_labels: int) -> None:
    student = build(name, num_labels=num_labels)
    assert student(*batch(3, 4, padded=False)).logits_BC.shape == (3, num_labels)
    assert_onnx_equals_forward(student)
    assert train(student, steps=80, rate=5e-3) < 0.1


@every_student
def test_classes_in_another_order_are_learned_alike(name: str) -> None:
    order = torch.tensor([2, 0, 3, 1])
    student, permuted = (build(name, num_labels=4) for _ in range(2))
    for values in permuted.classifier.parameters():
        values.data = values.data[order]
    ids, mask = batch(16, 9, padded=True)
    labels = torch.arange(16) % 4
    for model, target in ((student, labels), (permuted, order.argsort()[labels])):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(ids, mask).logits_BC, target).backward()
            optimizer.step()
    fresh = logits_of(build(name, num_labels=4), ids, mask)
    assert np.abs(logits_of(student, ids, mask) - fresh).max() > 1e-3
    np.testing.assert_allclose(
        logits_of(permuted, ids, mask), logits_of(student, ids, mask)[:, order], atol=1e-5, rtol=0
    )


@every_student
def test_learns_a_few_texts_by_heart(name: str) -> None:
    assert train(build(name), steps=80, rate=5e-3) < 0.05


@every_variation
def test_shapes(variation: tuple[str, Params]) -> None:
    student = build(*variation)
    output = student(*batch(5, 7, padded=True))
    assert output.logits_BC.shape == (5, SHAPE.num_labels)
    assert output.logits_BC.dtype == torch.float32
    assert output.hidden_BD.shape == (5, student.width)
    assert student.classifier.in_features == student.width


@every_student
def test_bfloat16_autocast_keeps_logits_close(name: str) -> None:
    student, query = build(name).eval(), batch(6, 9, padded=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = student(*query)
    output.logits_BC.float().sum().backward()
    np.testing.assert_allclose(
        output.logits_BC.detach().float().numpy(), logits_of(student, *query), atol=0.05
    )


@every_student
def test_ids_that_share_a_row_are_one_token(name: str) -> None:
    table = np.full(SHAPE.vocab_size, 1)
    table[5] = 2
    student = build_student(name, default_params(name), SHAPE, table, seed=0)
    mask = torch.ones(3, 3, dtype=torch.int64)
    first, same, other = logits_of(student, torch.tensor([[7, 8, 9], [10, 7, 40], [7, 5, 9]]), mask)
    np.testing.assert_allclose(first, same, atol=1e-6)
    assert np.abs(first - other).max() > 1e-5


@pytest.mark.parametrize("table", [np.zeros(7, np.int64), np.full(SHAPE.vocab_size, SHAPE.num_tokens)])
def test_an_id_table_that_does_not_fit_is_refused(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="id table"):
        build_student("bag", default_params("bag"), SHAPE, table)


@every_student
def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = build(name, seed=1), build(name, seed=1), build(name, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [dict(student.state_dict()) for student in (one, same, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def seen(name: str, params: Params) -> tuple[object, list[np.ndarray]]:
    """What a parameter can change: what is given and learned, and what is computed while training."""
    student = build(name, params).train()
    learning = [n for n, p in student.named_parameters() if p.requires_grad]
    torch.manual_seed(0)
    output = student(*batch(16, 9, padded=False))
    return (wants(name, params), learning), [values.detach().numpy() for values in output]


@every_student
def test_every_parameter_matters(name: str) -> None:
    for key, param, setting in parameters(name):
        values = (*values_of(param), *param.default.values(), 2)
        other = next(v for v in values if v != setting[key] and param.accepts(v))
        (needs, before), (other_needs, after) = (
            seen(name, default_params(name, {**setting, key: value})) for value in (setting[key], other)
        )
        assert needs != other_needs or any(
            a.shape != b.shape or not np.allclose(a, b) for a, b in zip(before, after, strict=True)
        ), key


@every_student
def test_space_is_sound(name: str) -> None:
    space, earlier = STUDENTS[name].SPACE, set[str]()
    for key, param in space.items():
        assert all(param.accepts(value) for value in param.default.values()), key
        continuous = isinstance(param.default, Range) and not param.default.integer
        assert not (param.architecture and continuous), f"{key}: figures could not be shared"
        if param.when is not None:
            assert param.when[0] in earlier, f"{key} is asked for before what it depends on"
            assert all(space[param.when[0]].accepts(value) for value in param.conditions), key
        earlier.add(key)


@every_student
def test_architecture_key_names_what_latency_depends_on(name: str) -> None:
    for key, param, setting in parameters(name):
        own = {architecture_key(name, setting, SHAPE)}
        values = [value for value in values_of(param) if value != setting[key]]
        changed = [default_params(name, {**setting, key: value}) for value in values]
        found = {architecture_key(name, params, SHAPE) for params in changed}
        assert len(found) == (len(values) if param.architecture else min(1, len(values))), key
        assert found.isdisjoint(own) if param.architecture else found <= own, key
        assert architecture_key(name, setting, replace(SHAPE, num_tokens=51)) not in own


@every_variation
def test_architecture_key_leaves_out_what_a_student_is_not_given(variation: tuple[str, Params]) -> None:
    needs = wants(*variation)
    key = architecture_key(*variation, SHAPE)
    wider = replace(SHAPE, embedding_width=7)
    assert (architecture_key(*variation, wider) == key) == (needs.embedding == "random")
    deeper = replace(SHAPE, encoder=replace(ENCODER, layers=7))
    assert (architecture_key(*variation, deeper) == key) == (needs.encoder == "")


@every_student
def test_equal_architectures_have_equal_onnx_sizes(name: str) -> None:
    sizes = [len(build(name, {**default_params(name), "dropout": d}).onnx_model()) for d in (0.0, 0.3)]
    assert sizes[0] == sizes[1]


@every_student
def test_onnx_interface(name: str) -> None:
    graph = onnx.load_from_string(build(name).onnx_model()).graph
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    assert shapes == {"input_ids": ["batch", "tokens"], "attention_mask": ["batch", "tokens"]}
    assert [output.name for output in graph.output] == ["logits"]


@every_variation
def test_saved_and_loaded_student_is_the_same(variation: tuple[str, Params], tmp_path: Path) -> None:
    student = build(*variation)
    save_student(student, tmp_path / "s", ("a", "b", "é"))
    saved = load_student(tmp_path / "s")
    assert (saved.labels, saved.student.NAME, saved.student.params) == (("a", "b", "é"), *variation)
    assert saved.student.shape == own_part(*variation, SHAPE)
    assert not saved.student.training
    query = batch(7, 9, padded=True)
    assert np.array_equal(logits_of(saved.student, *query), logits_of(student, *query))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"filters": 8}, "missing"),
        ({**default_params("bag"), "layers": 2}, "layers"),
        ({**default_params("bag"), "hidden": 0}, "hidden is 0"),
    ],
)
def test_parameters_are_checked(params: Params, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_student("bag", params, SHAPE, None)


def test_importing_students_loads_neither_onnx_nor_transformers() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(base.__file__).parents[2])}
    code = "import sys, kdsearch.students; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert {"torch"} <= set(loaded.split())
    assert not {"onnx", "onnxruntime", "transformers", "optuna", "sqlalchemy"} & set(loaded.split())


def test_without_the_onnx_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kdsearch.students.onnx_graph", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match="onnx is not installed") as caught:
        build("bag").onnx_model()
    assert "kdsearch[onnx]" in caught.value.hint
