"""What the pages about trials and parameters load, kept while nothing changes or for seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import streamlit as st

from dashboard import confusion, disagreements, source
from dashboard.confusion import Confusion
from dashboard.disagreements import Disagreements
from dashboard.queries import stories
from dashboard.queries.studies import Snapshot
from dashboard.story import Story
from kdsearch.core.errors import ArtifactError
from kdsearch.core.space import Scalar
from kdsearch.store import particulars, reads_live
from kdsearch.store.artifacts import ArtifactStore
from kdsearch.store.reads import StudyRow, TrialRow
from kdsearch.store.reads_live import ImportanceRow

KEPT_S = 3.0


def load_story(snapshot: Snapshot, number: int) -> Story:
    """One trial; NotFoundError if there is none of that number."""
    return _story(source.storage_url(), snapshot.study.id, number, snapshot)


@st.cache_resource(ttl=KEPT_S, max_entries=32, show_spinner=False)
def _story(url: str, study_id: int, number: int, _snapshot: Snapshot) -> Story:
    return stories.read(source.engine(), _snapshot, number)


def load_params(snapshot: Snapshot) -> Mapping[int, Mapping[str, Scalar]]:
    """Parameters of the complete trials; read again when there are more of them."""
    num_complete = int(snapshot.trials.complete.sum())
    return _params(source.storage_url(), snapshot.study.id, num_complete)


@st.cache_resource(ttl="1h", max_entries=8, show_spinner=False)
def _params(url: str, study_id: int, num_complete: int) -> Mapping[int, Mapping[str, Scalar]]:
    return particulars.params(source.engine(), study_id)


def load_importances(snapshot: Snapshot) -> Sequence[ImportanceRow]:
    """How much each parameter says about each objective; empty before a worker worked it out."""
    return reads_live.importances(source.engine(), snapshot.study.id)


# ---------------------------------------------------------------- from the artifact store


def labels_of(study: StudyRow) -> tuple[str, ...] | None:
    """The classes in the order of logits and confusion matrices; None before the teacher is prepared."""
    given = (study.spec.get("data") or {}).get("labels")
    if given:
        return tuple(given)
    return None if study.prepared is None else _labels(source.artifacts(study), study.prepared)


@st.cache_resource(max_entries=32, show_spinner=False)
def _labels(_store: ArtifactStore, prepared: str) -> tuple[str, ...]:
    return tuple(json.loads(_store.open(prepared).read_bytes())["labels"])


def confusion_of(study: StudyRow, trial: TrialRow) -> Confusion | None:
    """The trial's confusion matrix; None where it was not recorded. Without names classes are numbered."""
    if trial.confusion is None:
        return None
    try:
        labels = labels_of(study)
    except ArtifactError:
        labels = None
    return confusion.confusion(labels or [f"class {i}" for i in range(len(trial.confusion))], trial.confusion)


def load_disagreements(study: StudyRow, trial: TrialRow) -> Disagreements | None:
    """None where rows or logits were not stored; ArtifactError where they cannot be read from here."""
    rows, labels = study.validation_rows, labels_of(study)
    if rows is None or labels is None or trial.validation_logits is None:
        return None
    return _disagreements(source.artifacts(study), rows, trial.validation_logits, labels)


@st.cache_resource(ttl="10m", max_entries=4, show_spinner="Reading texts")
def _disagreements(_store: ArtifactStore, rows: str, logits: str, labels: tuple[str, ...]) -> Disagreements:
    logits_NC = np.load(_store.open(logits), allow_pickle=False)
    return disagreements.disagreements(disagreements.read_rows(_store.open(rows)), logits_NC, labels)
