"""What every registered student must keep to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from kdsearch.core.errors import ArtifactError, UsageError
from kdsearch.core.space import Range, Scalar
from kdsearch.students import STUDENTS, base
from kdsearch.students.base import InputShape, Student
from kdsearch.students.building import architecture_key, build_student, load_student, save_student

SHAPE = InputShape(vocab_size=120, num_tokens=50, num_labels=3, max_length=21, pad_id=0)
ID_TABLE = np.random.default_rng(0).integers(2, SHAPE.num_tokens, SHAPE.vocab_size)


def default_params(name: str) -> dict[str, Scalar]:
    """The first value of every parameter, and nothing dropped."""
    first = {key: param.default.values()[0] for key, param in STUDENTS[name].SPACE.items()}
    return {**first, **({"dropout": 0.0} if "dropout" in first else {})}


def variations() -> list[tuple[str, dict[str, Scalar]]]:
    """Every student by default, and with one parameter changed, for each other value it may have."""
    found = []
    for name, student in STUDENTS.items():
        default = default_params(name)
        found.append((name, default))
        for key, param in student.SPACE.items():
            values = param.allowed or param.default.values()
            found += [(name, {**default, key: value}) for value in values if value != default[key]]
    return [*found, ("bilstm", {**default_params("bilstm"), "layers": 2, "pooling": "last"})]


def label(variation: tuple[str, dict[str, Scalar]]) -> str:
    name, params = variation
    changed = [f"{k}={v}" for k, v in params.items() if default_params(name)[k] != v]
    return " ".join([name, *changed])


every_student = pytest.mark.parametrize("name", list(STUDENTS))
every_variation = pytest.mark.parametrize("variation", variations(), ids=label)


def build(name: str, params: dict[str, Scalar] | None = None, seed: int = 3) -> Student:
    return build_student(name, params or default_params(name), SHAPE, ID_TABLE, seed=seed)


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
    labels = torch.arange(16) % SHAPE.num_labels
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    student.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(student(ids, mask).logits_BC, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def assert_onnx_equals_forward(student: Student) -> None:
    session = onnxruntime.InferenceSession(student.onnx_model())
    for rows, columns, padded in product((1, 2, 7, 32), (1, 2, 5, SHAPE.max_length), (False, True)):
        ids, mask = batch(rows, columns, padded=padded)
        found = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        np.testing.assert_allclose(found, logits_of(student, ids, mask), atol=1e-4, rtol=0)


@every_variation
def test_onnx_equals_forward_before_and_after_training(variation: tuple[str, dict[str, Scalar]]) -> None:
    student = build(*variation)
    assert_onnx_equals_forward(student)
    untrained = logits_of(student, *batch(4, 6, padded=False))
    train(student, steps=3)
    assert np.abs(logits_of(student, *batch(4, 6, padded=False)) - untrained).max() > 1e-3
    assert_onnx_equals_forward(student)


@every_variation
def test_padding_and_company_change_nothing(variation: tuple[str, dict[str, Scalar]]) -> None:
    student = build(*variation)
    ids, mask = batch(12, SHAPE.max_length, padded=True)
    together = logits_of(student, ids, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        if length:
            alone = logits_of(student, ids[row : row + 1, :length], mask[row : row + 1, :length])
            np.testing.assert_allclose(alone[0], together[row], atol=1e-5, rtol=0)


@every_variation
def test_an_empty_text_has_logits_that_no_padding_changes(variation: tuple[str, dict[str, Scalar]]) -> None:
    student = build(*variation)
    once = logits_of(student, *(torch.zeros(1, 1, dtype=torch.int64) for _ in range(2)))
    often = logits_of(student, *(torch.zeros(3, 8, dtype=torch.int64) for _ in range(2)))
    assert np.isfinite(once).all()
    np.testing.assert_allclose(often, np.repeat(once, 3, axis=0), atol=1e-6)


@every_variation
def test_every_weight_gets_a_gradient(variation: tuple[str, dict[str, Scalar]]) -> None:
    student = build(*variation).train()
    ids, mask = batch(16, SHAPE.max_length, padded=False)
    nn.functional.cross_entropy(student(ids, mask).logits_BC, torch.arange(16) % 3).backward()
    idle = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


@every_student
def test_learns_a_few_texts_by_heart(name: str) -> None:
    assert train(build(name), steps=80, rate=5e-3) < 0.05


@every_student
def test_shapes(name: str) -> None:
    output = build(name)(*batch(5, 7, padded=True))
    assert output.logits_BC.shape == (5, SHAPE.num_labels)
    assert output.logits_BC.dtype == torch.float32
    assert output.hidden_BD.ndim == 2
    assert len(output.hidden_BD) == 5


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


@every_student
def test_every_parameter_matters(name: str) -> None:
    query = batch(16, 9, padded=False)

    def seen(params: dict[str, Scalar]) -> list[np.ndarray]:
        student = build(name, params).train()
        torch.manual_seed(0)
        output = student(*query)
        return [output.logits_BC.detach().numpy(), output.hidden_BD.detach().numpy()]

    default = default_params(name)
    for key, param in STUDENTS[name].SPACE.items():
        others = [
            v for v in (*param.allowed, *param.default.values(), 2) if v != default[key] and param.accepts(v)
        ]
        before, after = seen(default), seen({**default, key: others[0]})
        assert any(a.shape != b.shape or not np.allclose(a, b) for a, b in zip(before, after, strict=True)), (
            key
        )


@every_student
def test_space_is_sound(name: str) -> None:
    for key, param in STUDENTS[name].SPACE.items():
        assert all(param.accepts(value) for value in param.default.values()), key
        continuous = isinstance(param.default, Range) and not param.default.integer
        assert not (param.architecture and continuous), f"{key}: figures could not be shared"


@every_student
def test_architecture_key_names_what_latency_depends_on(name: str) -> None:
    default = default_params(name)
    keys = {architecture_key(name, default, SHAPE)}
    for key, param in STUDENTS[name].SPACE.items():
        values = [value for value in param.default.values() if value != default[key]]
        found = {architecture_key(name, {**default, key: value}, SHAPE) for value in values}
        assert len(found) == (len(values) if param.architecture else min(1, len(values)))
        assert found.isdisjoint(keys) if param.architecture else found <= keys
    wider = InputShape(vocab_size=120, num_tokens=51, num_labels=3, max_length=21, pad_id=0)
    assert architecture_key(name, default, wider) not in keys


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
def test_saved_and_loaded_student_is_the_same(
    variation: tuple[str, dict[str, Scalar]], tmp_path: Path
) -> None:
    student = build(*variation)
    save_student(student, tmp_path / "s", ("a", "b", "é"))
    saved = load_student(tmp_path / "s")
    assert (saved.labels, saved.student.NAME, saved.student.params) == (("a", "b", "é"), *variation)
    assert saved.student.shape == SHAPE
    assert not saved.student.training
    query = batch(7, 9, padded=True)
    assert np.array_equal(logits_of(saved.student, *query), logits_of(student, *query))


def test_a_saved_student_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """Python says where a file's encoding is left to the locale: there `垃圾` could not be written."""
    code = (
        "import sys; from pathlib import Path; from kdsearch.students import building as b;"
        "from kdsearch.students.base import InputShape;"
        "shape = InputShape(vocab_size=9, num_tokens=9, num_labels=2, max_length=8, pad_id=0);"
        "bag = b.build_student('bag', {'embed_dim': 4, 'hidden': 4, 'dropout': 0.0}, shape, None);"
        "b.save_student(bag, Path(sys.argv[1]), ('好', '垃圾'));"
        "assert b.load_student(Path(sys.argv[1])).labels == ('好', '垃圾')"
    )
    strict = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning:kdsearch.students.building"]
    environment = {**os.environ, "PYTHONPATH": str(Path(base.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *strict, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def lose_description(folder: Path) -> None:
    (folder / "student.json").unlink()


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])


def change(folder: Path, **values: object) -> None:
    path = folder / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_description, "student.json"),
        (cut_weights, "does not hold a student"),
        (lambda folder: change(folder, student="transducer"), "'transducer'"),
        (lambda folder: change(folder, format=99), "format 99"),
        (lambda folder: change(folder, params={}), "missing"),
    ],
)
def test_a_damaged_folder_is_an_artifact_error(damage: object, message: str, tmp_path: Path) -> None:
    save_student(build("bag"), tmp_path, ("a", "b", "c"))
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=message):
        load_student(tmp_path)


def test_labels_must_be_as_many_as_logits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 labels for 3 logits"):
        save_student(build("bag"), tmp_path, ("a", "b"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"filters": 8}, "missing"),
        ({**default_params("bag"), "layers": 2}, "layers"),
        ({**default_params("bag"), "hidden": 0}, "hidden is 0"),
    ],
)
def test_parameters_are_checked(params: dict[str, Scalar], message: str) -> None:
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
