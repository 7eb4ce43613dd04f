"""What the int8 graph is worth: quality, agreement with float32, and latency, each measured at export.

Letters: N rows of the validation pool, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.core.blobs import Blobs
from kdsearch.core.records import Latency
from kdsearch.core.spec import LatencySpec
from kdsearch.data.prepared import Prepared, Vocabulary
from kdsearch.data.tokens import TokenPool
from kdsearch.export.evaluate import BOOTSTRAP_SEED, evaluate_validation, load_pool
from kdsearch.export.manifest import Quantised
from kdsearch.export.predict import open_session, open_tokenizer, pad
from kdsearch.export.quantise import operators
from kdsearch.export.verify import Run, padded_logits, pool_logits, session_run
from kdsearch.measure.hostlock import HostLock, lock_folder
from kdsearch.measure.latency import measure_prepared
from kdsearch.measure.quality import paired_bootstrap
from kdsearch.measure.runtimes.base import IntArray
from kdsearch.measure.runtimes.base import Prepared as Timed

FloatArray = npt.NDArray[np.float32]
NUM_TEXTS = 1000


@dataclass(frozen=True)
class Graphs:
    """The same student twice."""

    float32: Path
    int8: Path
    num_params: int


def measure_int8(
    graphs: Graphs,
    blobs: Blobs,
    prepared: Prepared,
    vocabulary: Vocabulary,
    *,
    objective: str,
    tokenizer: Path,
    texts: Sequence[str],
    protocol: LatencySpec,
) -> Quantised:
    """Run both graphs over the validation pool, then time both under the study's protocol."""
    pool = load_pool(blobs, vocabulary, "validation")
    exact_NC = _logits(graphs.float32, pool, prepared, vocabulary)
    found_NC = _logits(graphs.int8, pool, prepared, vocabulary)
    padded_NC = padded_logits(_run(graphs.int8), pool, **_sizes(prepared, vocabulary))
    difference = paired_bootstrap(
        found_NC, exact_NC, pool.labels_N, labels=prepared.labels, objective=objective, seed=BOOTSTRAP_SEED
    )
    encode = _Encode(tokenizer, prepared.max_length, vocabulary.pad_id)
    return Quantised(
        validation=evaluate_validation(found_NC, pool, blobs, prepared, objective),
        difference=(difference.value, difference.low, difference.high),
        same_label=_same(found_NC, exact_NC),
        largest_diff=_largest(found_NC, exact_NC),
        batch_diff=_largest(found_NC, padded_NC),
        batch_changed=1.0 - _same(found_NC, padded_NC),
        operators=operators(graphs.int8.read_bytes()),
        float_latency=_timed(graphs.float32, graphs.num_params, texts, encode, protocol),
        latency=_timed(graphs.int8, graphs.num_params, texts, encode, protocol),
    )


def _run(path: Path) -> Run:
    return session_run(open_session(path))


def _sizes(prepared: Prepared, vocabulary: Vocabulary) -> dict[str, int]:
    return {"num_labels": len(prepared.labels), "pad_id": vocabulary.pad_id}


def _logits(path: Path, pool: TokenPool, prepared: Prepared, vocabulary: Vocabulary) -> FloatArray:
    """(N, C), one row at a time, as int8 is to be run."""
    return pool_logits(_run(path), pool, batch_size=1, **_sizes(prepared, vocabulary))


def _same(a: FloatArray, b: FloatArray) -> float:
    return float(np.mean(a.argmax(axis=1) == b.argmax(axis=1)))


def _largest(a: FloatArray, b: FloatArray) -> float:
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0))


class _Encode:
    """Texts to ids and mask by the exported tokenizer."""

    def __init__(self, tokenizer: Path, max_length: int, pad_id: int) -> None:
        self._tokenizer, self._pad_id = open_tokenizer(tokenizer, max_length), pad_id

    def __call__(self, texts: list[str]) -> tuple[IntArray, IntArray]:
        return pad([encoding.ids for encoding in self._tokenizer.encode_batch(texts)], self._pad_id)


def _timed(path: Path, num_params: int, texts: Sequence[str], encode: _Encode, spec: LatencySpec) -> Latency:
    """Under the study's protocol; on the CPU, whatever the study was measured on."""
    protocol = spec.model_copy(update={"device": "cpu", "runtime": "onnx"})
    run = session_run(open_session(path, threads=protocol.threads))
    ready = Timed(run, path.stat().st_size / 1e6, num_params)
    lock = HostLock(lock_folder(os.environ))
    return measure_prepared(ready, texts[:NUM_TEXTS], encode, protocol, lock)
