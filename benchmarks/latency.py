"""Latency of each student's default architectures against a 6-layer, 384-wide BERT (the shape of MiniLM-L6).

    python benchmarks/latency.py [--texts FILE.jsonl] [--seconds 1] [--threads 1] [--all]

Every module is converted and timed as a study does it: ONNX on the CPU, batch 1, one text after another.
Without --texts, lengths are drawn from a log-normal distribution like that of short messages. Weights are
random: they do not change the figures. On a machine that does other work too, read the last column only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from kdsearch.core.records import Latency
from kdsearch.core.space import Scalar
from kdsearch.core.spec import LatencySpec
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.latency import measure_latency
from kdsearch.students import STUDENTS
from kdsearch.students.base import InputShape
from kdsearch.students.building import build_student

SHAPE = InputShape(vocab_size=30522, num_tokens=8000, num_labels=2, max_length=128, pad_id=0)


class Reference(nn.Module):
    """MiniLM-L6's shape with a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = BertForSequenceClassification(
            BertConfig(
                hidden_size=384,
                num_hidden_layers=6,
                num_attention_heads=12,
                intermediate_size=1536,
                num_labels=2,
            )
        )

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> tuple[Tensor]:
        """Logits."""
        return (self.bert(input_ids=input_ids_BT, attention_mask=attention_mask_BT).logits,)


def texts(path: Path | None) -> list[str]:
    """Texts of a file, or words in numbers as people write them."""
    if path is not None:
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]
    lengths = np.random.default_rng(0).lognormal(2.9, 0.6, 500).clip(2, 110).astype(int)
    return ["word " * length for length in lengths]


def encode(batch: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """One id per word: the tokenizer is not what is compared."""
    counts = np.array([min(len(text.split()) + 2, SHAPE.max_length) for text in batch])
    mask = (np.arange(counts.max()) < counts[:, None]).astype(np.int64)
    return np.random.default_rng(0).integers(1, SHAPE.vocab_size, mask.shape) * mask, mask


def architectures(name: str, *, every: bool) -> Iterator[dict[str, Scalar]]:
    """The smallest and the largest default architecture, or all of them."""
    space = STUDENTS[name].SPACE
    choices = [p.default.values() if p.architecture else p.default.values()[:1] for p in space.values()]
    found = [dict(zip(space, values, strict=True)) for values in product(*choices)]
    yield from found if every else (found[0], found[-1])


def line(name: str, params: dict[str, Scalar], figure: Latency, reference: Latency) -> str:
    """One row of the table."""
    shown = " ".join(f"{k}={v}" for k, v in params.items() if k != "dropout")
    ratio = reference.p90_ms / figure.p90_ms
    return f"{name:<11}{figure.p50_ms:9.3f}{figure.p90_ms:9.3f}{figure.size_mb:9.1f}{ratio:9.1f}x  {shown}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--all", action="store_true", help="every default architecture, not only the extremes"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = LatencySpec(threads=options.threads, min_seconds=options.seconds)
    queries = texts(options.texts)
    with tempfile.TemporaryDirectory() as folder:
        lock = HostLock(Path(folder))
        reference = measure_latency(Reference().eval(), queries, encode, spec, lock)
        print(f"{'':<11}{'p50 ms':>9}{'p90 ms':>9}{'MB':>9}{'p90 of BERT':>12}")
        print(line("BERT 6x384", {}, reference, reference))
        for name in STUDENTS:
            for params in architectures(name, every=options.all):
                student = build_student(name, params, SHAPE, None)
                print(line(name, params, measure_latency(student, queries, encode, spec, lock), reference))


if __name__ == "__main__":
    main()
