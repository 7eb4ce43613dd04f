"""The Trials page."""

from __future__ import annotations

import streamlit as st

from dashboard import frame
from dashboard.queries.studies import Snapshot


def show() -> None:
    """Draw the page."""
    frame.page("Trials", _draw)


def _draw(snapshot: Snapshot) -> None:
    st.info(f"`kdsearch trial list {snapshot.study.name}` shows every trial.")


if __name__ == "__main__":
    show()
