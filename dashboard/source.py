"""Where the pages read from: the database that KDSEARCH_STORAGE names; answers kept while nothing changes."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st
from sqlalchemy import Engine

from dashboard.queries import studies
from dashboard.queries.studies import Snapshot
from kdsearch.core.errors import UsageError
from kdsearch.store import columns, reads
from kdsearch.store.artifacts import ArtifactStore, is_gone
from kdsearch.store.columns import Best, Pulse
from kdsearch.store.connect import make_engine
from kdsearch.store.reads import StudyRow
from kdsearch.store.statefolder import resolve_home

KEPT_S = 3.0
URLS = ("KDSEARCH_DASHBOARD_STORAGE", "KDSEARCH_STORAGE")
"""The first that is set counts; it may name a role that can only read."""


def storage_url() -> str:
    """The storage URL, which comes by environment because command lines are public."""
    url = next(filter(None, (os.environ.get(name, "") for name in URLS)), "")
    if not url:
        hint = "Start the dashboard with `kdsearch dashboard`, which finds the database itself"
        raise UsageError("No database was named (KDSEARCH_STORAGE is not set)", hint=hint)
    return url


def engine() -> Engine:
    """Connections that only read."""
    return _engine(storage_url())


def filing_engine() -> Engine:
    """Connections that may write: for filing requests, and nothing else."""
    return _filing_engine(storage_url())


@st.cache_resource(max_entries=4, show_spinner=False)
def _filing_engine(url: str) -> Engine:
    return make_engine(url)


@st.cache_resource(max_entries=4, show_spinner=False)
def _engine(url: str) -> Engine:
    return studies.connect(url)


@st.cache_data(ttl=KEPT_S, max_entries=4, show_spinner=False)
def _studies(url: str) -> list[StudyRow]:
    return reads.studies(_engine(url))


@st.cache_resource(max_entries=8, ttl="1h", show_spinner=False)
def _snapshot(url: str, name: str, token: str) -> Snapshot:  # a resource: frozen, and not to be copied
    return studies.snapshot(_engine(url), name)


def load_studies() -> list[StudyRow]:
    """Every study, newest first."""
    return _studies(storage_url())


def load_best() -> dict[int, Best]:
    """The student to deploy of each study, by the study's id."""
    return _best(storage_url())


@st.cache_data(ttl=KEPT_S, max_entries=4, show_spinner=False)
def _best(url: str) -> dict[int, Best]:
    return columns.best_trials(_engine(url))


def load_pulse(name: str) -> Pulse:
    """How far a study is, now."""
    return columns.pulse(engine(), name)


def load_snapshot(name: str, pulse: Pulse) -> Snapshot:
    """One study and its trials, at that pulse or a moment later."""
    return _snapshot(storage_url(), name, pulse.token)


def artifacts(study: StudyRow) -> ArtifactStore:
    """Where the study keeps what it made; what is read from there is checked against its hash."""
    home = resolve_home(os.environ)
    own = home / "artifacts"
    named = os.environ.get("KDSEARCH_ARTIFACTS")
    moved = own.as_uri() if is_gone(study.artifacts_url) and own.is_dir() else study.artifacts_url
    return _artifacts(named or moved, str(home / "cache" / "artifacts"))


@st.cache_resource(max_entries=8, show_spinner=False)
def _artifacts(url: str, cache: str) -> ArtifactStore:
    return ArtifactStore(url, Path(cache))
