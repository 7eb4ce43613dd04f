"""The validation pool for whoever looks at single texts: in order, with the teacher's word; or not at all."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import numpy as np

from kdsearch.core.studyfile import StudyFile
from kdsearch.data.dataset import load_saved
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared
from kdsearch.measure.quality import confusion
from kdsearch.store import reads, studies
from kdsearch.store.connect import Store

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]


def test_every_row_of_the_pool_is_there_with_label_and_teacher(
    store: Store, write_study: Write, finish: Finish
) -> None:
    finish(write_study(trials=1, epochs=1))
    study, record = reads.study(store.engine, "tiny"), studies.find_study(store.engine, "tiny")
    assert study.validation_rows is not None
    assert study.prepared is not None
    with gzip.open(store.blobs.open(study.validation_rows), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    dataset = load_saved(store.blobs, Inputs.load(store.blobs, record.dataset_sha256).dataset)
    prepared = Prepared.load(store.blobs, study.prepared)
    assert [row["text"] for row in rows] == list(dataset.pools["validation"].texts)
    labels_N = dataset.pools["validation"].labels_N
    assert [row["label"] for row in rows] == [dataset.labels[label] for label in labels_N]
    logits_NC = np.load(store.blobs.open(str(prepared.pools["validation"].logits)))
    assert [row["teacher"] for row in rows] == [prepared.labels[said] for said in logits_NC.argmax(1)]
    assert study.teacher is not None
    assert study.teacher.confusion == confusion(logits_NC, labels_N)
    trial = reads.trial(store.engine, study.id, 0)
    assert trial.confusion == confusion(np.load(store.blobs.open(str(trial.validation_logits))), labels_N)


def test_texts_that_stay_hidden_are_not_kept_for_the_pages(
    store: Store, write_study: Write, finish: Finish
) -> None:
    hidden = ("data:\n", "data:\n  show_texts: false\n")
    finish(write_study(trials=1, epochs=1, replace=hidden))
    assert reads.study(store.engine, "tiny").validation_rows is None
