"""The Workers page."""

from __future__ import annotations

import streamlit as st

from dashboard import frame
from dashboard.queries.studies import Snapshot


def show() -> None:
    """Draw the page."""
    frame.page("Workers", _draw)


def _draw(snapshot: Snapshot) -> None:
    st.info(f"`kdsearch study show {snapshot.study.name}` shows who works on the study.")


if __name__ == "__main__":
    show()
