"""What the dashboard shows single texts from: the validation pool with what the teacher says of each text.

A study file may say `show_texts: false`; then nothing is kept but the texts themselves, which training needs.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kdsearch.data.dataset import NO_LABEL, Dataset
from kdsearch.store import studies
from kdsearch.worker.context import WorkerContext


def put_validation_rows(
    context: WorkerContext, dataset: Dataset, teacher_logits_NC: npt.NDArray[np.floating]
) -> None:
    """Store them as gzipped JSON lines in the pool's order, unless the study file hides them."""
    if not context.spec.data.show_texts:
        return
    lines = "".join(f"{line}\n" for line in _lines(dataset, teacher_logits_NC))
    sha256 = context.store.blobs.put(gzip.compress(lines.encode(), mtime=0))
    studies.set_validation_rows(context.store.engine, context.study.id, sha256)


def _lines(dataset: Dataset, teacher_logits_NC: npt.NDArray[np.floating]) -> Iterator[str]:
    pool, labels = dataset.pools["validation"], dataset.labels
    for text, label, said in zip(pool.texts, pool.labels_N, teacher_logits_NC.argmax(1), strict=True):
        row = {
            "text": text,
            "label": None if label == NO_LABEL else labels[label],
            "teacher": labels[said],
        }
        yield json.dumps(row, ensure_ascii=False)
