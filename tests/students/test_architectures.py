"""Each student computes what its paper says: compared with a plain reference on single texts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kdsearch.students.base import InputShape
from kdsearch.students.building import build_student
from kdsearch.students.encoder import num_heads
from kdsearch.students.recurrent import reverse

SHAPE = InputShape(vocab_size=40, num_tokens=40, num_labels=2, max_length=16, pad_id=0)


def texts(lengths: list[int], columns: int) -> tuple[Tensor, Tensor]:
    ids = torch.from_numpy(np.random.default_rng(2).integers(1, 40, (len(lengths), columns)))
    return ids, (torch.arange(columns) < torch.tensor(lengths).unsqueeze(1)).long()


@torch.no_grad()
def test_textcnn_is_the_maximum_over_windows_that_touch_a_token() -> None:
    params = {"filters": 5, "kernel_sizes": (2, 5), "embed_dim": 6, "dropout": 0.0}
    student = build_student("textcnn", params, SHAPE, None).eval()
    ids, mask = texts([1, 2, 3, 9], 12)  # shorter than the widest kernel, and longer
    hidden = student(ids, mask).hidden_BD
    for row, length in enumerate(mask.sum(1).tolist()):
        words = student.embedding.weight[ids[row, :length]]
        expected = []
        for layer in student.convolutions:
            size = layer.kernel_size[0]
            before = (size - 1) // 2
            padded = torch.cat([torch.zeros(before, 6), words, torch.zeros(size, 6)])
            windows = torch.stack([padded[i : i + size].T for i in range(length)])  # one per token
            values = (windows.unsqueeze(1) * layer.weight).sum((2, 3)) + layer.bias
            expected.append(values.amax(0).relu())
        torch.testing.assert_close(hidden[row], torch.cat(expected), atol=1e-5, rtol=0)


@torch.no_grad()
def test_bilstm_equals_torch_s_packed_bidirectional_lstm() -> None:
    for pooling in ("last", "max", "mean"):
        params = {"hidden": 7, "layers": 2, "embed_dim": 6, "pooling": pooling, "dropout": 0.0}
        student = build_student("bilstm", params, SHAPE, None).eval()
        reference = nn.LSTM(6, 7, num_layers=2, batch_first=True, bidirectional=True)
        for layer in range(2):
            for parts, suffix in ((student.forwards, ""), (student.backwards, "_reverse")):
                for name, value in parts[layer].named_parameters():
                    getattr(reference, name.replace("_l0", f"_l{layer}") + suffix).copy_(value)
        ids, mask = texts([3, 12, 1, 7], 12)
        lengths = mask.sum(1)
        packed = pack_padded_sequence(student.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        states, (last, _) = reference(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, padding_value=float("nan"))
        expected = {
            "last": torch.cat([last[2], last[3]], dim=1),
            "max": states.nan_to_num(nan=-9.0).amax(1),
            "mean": states.nanmean(1),
        }[pooling]
        torch.testing.assert_close(student(ids, mask).hidden_BD, expected, atol=1e-5, rtol=0)


def test_reversing_twice_gives_the_text_back() -> None:
    values, lengths = torch.randn(4, 6, 3), torch.tensor([1, 6, 4, 2])
    twice = reverse(reverse(values, lengths), lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(twice[row, :length], values[row, :length])
        assert torch.equal(reverse(values, lengths)[row, 0], values[row, length - 1])


@torch.no_grad()
def test_attention_pools_a_convex_combination_that_follows_the_score() -> None:
    params = {"hidden": 4, "layers": 1, "embed_dim": 6, "pooling": "attention", "dropout": 0.0}
    student = build_student("bilstm", params, SHAPE, None).eval()
    states, lengths = torch.randn(3, 5, 8), torch.tensor([5, 2, 1])
    student.pooling.score.weight.zero_()
    pooled = student.pooling(states, lengths)
    torch.testing.assert_close(pooled[1], states[1, :2].mean(0))
    student.pooling.score.weight[0, 0] = 1e4  # all weight goes to the largest first unit
    pooled = student.pooling(states, lengths)
    torch.testing.assert_close(pooled[0], states[0, states[0, :, 0].argmax()])


@torch.no_grad()
def test_bag_knows_no_order_and_the_others_do() -> None:
    ids, mask = texts([9], 9)
    shuffled = ids[:, torch.tensor([3, 1, 4, 0, 8, 5, 2, 6, 7])]
    moved = {}
    for name, params in {
        "bag": {"embed_dim": 8, "hidden": 8},
        "textcnn": {"embed_dim": 8, "filters": 8, "kernel_sizes": (2, 3)},
        "bilstm": {"embed_dim": 8, "hidden": 8, "layers": 1, "pooling": "mean"},
        "bert_small": {"hidden": 32, "layers": 1},
    }.items():
        student = build_student(name, {**params, "dropout": 0.0}, SHAPE, None).eval()
        for parameter in student.parameters():
            parameter.mul_(3.0)  # so that an order that matters is seen above rounding
        difference = student(ids, mask).hidden_BD - student(shuffled, mask).hidden_BD
        moved[name] = difference.abs().max().item()
    assert moved.pop("bag") < 1e-5
    assert all(value > 1e-3 for value in moved.values()), moved


@torch.no_grad()
def test_bert_small_averages_the_states_of_a_transformers_bert() -> None:
    student = build_student("bert_small", {"hidden": 64, "layers": 2, "dropout": 0.0}, SHAPE, None).eval()
    ids, mask = texts([4, 16], 16)
    hidden = student(ids, mask).hidden_BD
    for row, length in ((0, 4), (1, 16)):
        states = student.encoder(input_ids=ids[row : row + 1, :length]).last_hidden_state
        torch.testing.assert_close(hidden[row], states[0].mean(0), atol=1e-5, rtol=0)


def test_heads_divide_any_width() -> None:
    assert {width: num_heads(width) for width in (4, 32, 64, 100, 128, 131, 384)} == {
        4: 1,
        32: 1,
        64: 2,
        100: 2,
        128: 4,
        131: 1,
        384: 12,
    }
