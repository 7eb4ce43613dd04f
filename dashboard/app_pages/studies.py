"""The Studies page: every study, newest first."""

from __future__ import annotations

import streamlit as st

from dashboard import frame, source


def show() -> None:
    """Draw the page."""
    st.title("Studies")
    with frame.explained():
        studies = source.load_studies()
        if not studies:
            st.info(frame.NO_STUDIES)
            return
        st.dataframe(
            [
                {"study": study.name, "state": study.state, "trials": sum(study.counts.values())}
                for study in studies
            ],
            hide_index=True,
            alt="Every study, newest first.",
        )


if __name__ == "__main__":
    show()
