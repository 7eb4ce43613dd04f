"""Predict with an exported student: numpy, tokenizers and onnxruntime; neither torch nor transformers.

Letters: N texts, B of a batch, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kdsearch.core.errors import KdsearchError
from kdsearch.export.manifest import ONNX, TOKENIZER, Manifest, check_file, read_manifest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One text's label, and the probability of every label in the order of the student's labels."""

    label: str
    probabilities: tuple[float, ...]

    @property
    def probability(self) -> float:
        """Of the label."""
        return max(self.probabilities)


def open_session(path: Path, *, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU with a stated number of threads."""
    try:
        import onnxruntime
    except ImportError as error:
        raise KdsearchError("onnxruntime is not installed", hint='pip install "kdsearch[onnx]"') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, ids_BT: IntArray, mask_BT: IntArray) -> FloatArray:
    """Logits (B, C) of one batch."""
    logits_BC: FloatArray = session.run(["logits"], {"input_ids": ids_BT, "attention_mask": mask_BT})[0]
    return logits_BC


def open_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """The exported tokenizer, cutting texts where the training cut them and padding nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[IntArray, IntArray]:
    """Token ids and mask (B, T), padded on the right to the longest row; at least one column."""
    width = max(1, *map(len, rows))
    ids_BT = np.full((len(rows), width), pad_id, np.int64)
    mask_BT = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = row
        mask_BT[i, : len(row)] = 1
    return ids_BT, mask_BT


class Predictor:
    """An exported folder, opened: the files it uses have been checked against the manifest."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, session: Any) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.session = session

    @classmethod
    def open(cls, folder: Path, *, threads: int = 1) -> Predictor:
        """NotFoundError where there is no export, VerificationError where a file was altered."""
        manifest = read_manifest(folder)
        tokenizer = open_tokenizer(check_file(folder, manifest, TOKENIZER), manifest.max_length)
        return cls(manifest, tokenizer, open_session(check_file(folder, manifest, ONNX), threads=threads))

    def logits(self, texts: Sequence[str], *, batch_size: int = 32) -> FloatArray:
        """(N, C), in the order of the texts; batches are made of texts of similar length."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        logits_NC = np.empty((len(rows), len(self.manifest.labels)), np.float32)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            logits_NC[batch] = run_session(self.session, *pad([rows[i] for i in batch], self.manifest.pad_id))
        return logits_NC

    def predict(self, texts: Sequence[str], *, batch_size: int = 32) -> list[Prediction]:
        """A label for every text."""
        logits_NC = self.logits(texts, batch_size=batch_size).astype(np.float64)
        exp_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True, initial=-np.inf))
        labels = self.manifest.labels
        return [
            Prediction(labels[int(row.argmax())], tuple(map(float, row)))
            for row in exp_NC / exp_NC.sum(axis=1, keepdims=True)
        ]
