"""The dashboard's entry: `kdsearch dashboard`, or `streamlit run` on this file with KDSEARCH_STORAGE set."""

from __future__ import annotations

import streamlit as st

from dashboard.app_pages import pareto


def main() -> None:
    """One page a question; more pages go into the list."""
    st.set_page_config(page_title="kdsearch", layout="wide")
    pages = [st.Page(pareto.show, title="Pareto front", url_path="pareto", default=True)]
    st.navigation(pages, position="top").run()


if __name__ == "__main__":
    main()
