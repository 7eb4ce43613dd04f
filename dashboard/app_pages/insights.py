"""The Insights page."""

from __future__ import annotations

import streamlit as st

from dashboard import frame
from dashboard.queries.studies import Snapshot


def show() -> None:
    """Draw the page."""
    frame.page("Insights", _draw)


def _draw(snapshot: Snapshot) -> None:
    st.info(f"`kdsearch study report {snapshot.study.name}` shows the table of students and schemes.")


if __name__ == "__main__":
    show()
