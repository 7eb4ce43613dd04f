"""Where the pages read from: the database that KDSEARCH_STORAGE names, its answers kept for seconds."""

from __future__ import annotations

import os

import streamlit as st
from sqlalchemy import Engine

from dashboard import queries
from dashboard.queries import Snapshot
from kdsearch.core.errors import UsageError

KEPT_S = 3.0


def storage_url() -> str:
    """The storage URL, which comes by environment because command lines are public."""
    url = os.environ.get("KDSEARCH_STORAGE", "")
    if not url:
        hint = "Start the dashboard with `kdsearch dashboard`, which finds the database itself"
        raise UsageError("No database was named (KDSEARCH_STORAGE is not set)", hint=hint)
    return url


@st.cache_resource(max_entries=4, show_spinner=False)
def _engine(url: str) -> Engine:
    return queries.connect(url)


@st.cache_data(ttl=KEPT_S, max_entries=4, show_spinner=False)
def _names(url: str) -> list[str]:
    return queries.study_names(_engine(url))


@st.cache_data(ttl=KEPT_S, max_entries=16, show_spinner=False)
def _snapshot(url: str, name: str) -> Snapshot:
    return queries.snapshot(_engine(url), name)


def load_names() -> list[str]:
    """Every study, newest first."""
    return _names(storage_url())


def load_snapshot(name: str) -> Snapshot:
    """One study and its trials."""
    return _snapshot(storage_url(), name)
