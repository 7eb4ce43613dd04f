"""The dashboard's entry: `kdsearch dashboard`, or `streamlit run` on this file with KDSEARCH_STORAGE set."""

from __future__ import annotations

import streamlit as st

from dashboard import login

HELP = {
    "studies": "Every study: how far it is, its best student, who works on it.",
    "pareto": "Quality against latency: which student is best within a budget.",
    "trials": "Every trial as a table, with filters and as CSV.",
    "trial": "One trial: parameters, learning curve, mistakes, latency, what happened to it.",
    "insights": "How the search went, and which parameters matter.",
    "compare": "Two to four trials side by side.",
    "workers": "Who runs what, and what failed.",
}


def main() -> None:
    """One page a question."""
    st.set_page_config(page_title="kdsearch", layout="wide")
    if login.is_required() and not login.is_done():
        login.ask()
        return
    pages = [  # without icons: the browser would fetch the page's own from elsewhere, for its tab
        st.Page(
            f"app_pages/{name}.py",
            title=name.capitalize(),
            url_path=name,
            default=name == "pareto",
            help=words,
        )
        for name, words in HELP.items()
    ]
    st.navigation(pages, position="top").run()
    if login.is_required():
        login.offer_leaving()


if __name__ == "__main__":
    main()
