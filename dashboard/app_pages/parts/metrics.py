"""The picker of what a learning curve shows, kept in the URL."""

from __future__ import annotations

import streamlit as st

from dashboard.figures import curves
from kdsearch.store.reads import StudyRow

NAMES = {
    "quality": "the objective",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "nll": "negative log-likelihood",
    "agreement": "agreement with the teacher",
    "coverage": "coverage",
}


def ask_metric(study: StudyRow) -> tuple[str, str]:
    """The picked figure by its name in `Scores`, and as an axis calls it."""
    picked = st.selectbox(
        "Figure", curves.METRICS, format_func=NAMES.__getitem__, key="metric", bind="query-params"
    )
    metric = str(picked)
    return metric, study.quality_name if metric == "quality" else NAMES[metric]
