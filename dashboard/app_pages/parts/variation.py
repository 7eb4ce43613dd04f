"""A variation of a trial, asked for on its page: its parameters, changed, are tried next by a worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import source
from dashboard.app_pages.parts.asking import FILED, last_request, show_state
from dashboard.frame import explained
from kdsearch.core.errors import UsageError
from kdsearch.core.space import Scalar
from kdsearch.store import requests
from kdsearch.store.reads import StudyRow

HELP = "A line each, as in a study file: 128, 0.001, [2, 3, 4] or kl. What is left out is sampled."


def as_lines(params: Mapping[str, Scalar]) -> str:
    """Parameters to be changed by hand; `from_lines` is its inverse."""
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in params.items()
    )


def from_lines(text: str) -> dict[str, Any]:
    """Parameters as they were written; UsageError for a line that says nothing."""
    found: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, sign, value = (part.strip() for part in line.partition(":"))
        if not (name and sign and value):
            raise UsageError(f"The line {line!r} says nothing", hint="For example: textcnn.filters: 128")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    if not found:
        raise UsageError("Nothing is said to be tried", hint="For example: textcnn.filters: 128")
    return found


@st.fragment
def variation_box(study: StudyRow, number: int, params: Mapping[str, Scalar]) -> None:
    """Have a configuration near a trial's tried next."""
    with explained(), st.expander("Try a variation", icon=":material/tune:"):
        st.text_area("Parameters", as_lines(params), key=f"variation-{number}", help=HELP, height=220)
        st.button(
            "Have it tried next",
            key=f"enqueue-{number}",
            icon=":material/playlist_add:",
            on_click=_file,
            args=(study.name, f"variation-{number}"),
            help="A worker of the study checks it and enqueues it; it counts against the budget.",
        )
        if complaint := st.session_state.pop("variation-complaint", None):
            st.error(complaint)
        last = last_request(study, "enqueue", {})
        if last is not None and (last.state in FILED or last.state == "failed"):
            show_state(last, source.load_pulse(study.name), study.name)
        elif last is not None and last.result:
            st.success(f"Request {last.id} became trial {last.result.get('trial')}.", icon=":material/check:")


def _file(study: str, key: str) -> None:
    try:
        params = from_lines(str(st.session_state[key]))
    except UsageError as error:
        st.session_state["variation-complaint"] = f"{error.what}. {error.hint}"
        return
    with explained():
        requests.file(source.filing_engine(), study, "enqueue", {"params": params})
