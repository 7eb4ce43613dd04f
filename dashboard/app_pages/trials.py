"""The Trials page: every trial as a table, with filters, a link to each, and as CSV."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from dashboard import frame, wording
from dashboard.queries.studies import Snapshot
from kdsearch.store.columns import TrialColumns

ORDER = ("complete", "running", "paused", "stopped", "rejected", "failed", "waiting")
CONFIG = {
    "trial": st.column_config.NumberColumn(pinned=True),
    **{
        name: st.column_config.NumberColumn(format="%.4f")
        for name in ("quality", "accuracy", "macro-F1", "agreement")
    },
    **{f"{p} (ms)": st.column_config.NumberColumn(format="%.3f") for p in ("p50", "p90", "p99")},
    "size (MB)": st.column_config.NumberColumn(format="%.2f"),
    "model parameters": st.column_config.NumberColumn(format="compact"),
    "training (s)": st.column_config.NumberColumn(format="%.0f"),
    "ended": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss"),
}


def show() -> None:
    """Draw the page."""
    frame.page("Trials", _draw)


def _draw(snapshot: Snapshot) -> None:
    trials = snapshot.trials
    if not len(trials):
        st.info(f"No trials yet. A worker starts them: `kdsearch worker start --study {snapshot.study.name}`")
        return
    kept = _filter(trials)
    rows = table(kept)
    numbers = kept.number.tolist()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        with st.container(width=260):
            picked = frame.pick_trial(snapshot, "Trial (click the left end of a row, or type)")
        if picked is not None:
            frame.link_to_trial(snapshot.study.name, picked, f"Open trial {picked}")
        st.download_button(
            "CSV",
            data=lambda: wording.as_csv(rows),
            file_name=f"{snapshot.study.name}-trials.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.caption(f"{len(kept):,} of {wording.plural(len(trials), 'trial')}")
    st.dataframe(
        rows,
        hide_index=True,
        key="trials-table",
        height=600,
        column_config=CONFIG,
        on_select=lambda: _pick(numbers),
        selection_mode="single-row",
        placeholder=wording.NONE,
        alt="Every trial that the filters leave, by number.",
    )


def _pick(numbers: list[int]) -> None:
    rows = st.session_state["trials-table"]["selection"]["rows"]
    if rows:
        frame.pick("trial", numbers[rows[0]])


def _filter(trials: TrialColumns) -> TrialColumns:
    """What the pills leave; none pressed means all."""
    kept = np.ones(len(trials), np.bool_)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for label, key, column in (
            ("States", "states", trials.state),
            ("Students", "students", trials.student),
            ("Schemes", "schemes", trials.scheme),
            ("Chosen by", "origins", trials.origin),
        ):
            options = sorted(set(column), key=lambda name: (ORDER.index(name) if name in ORDER else 0, name))
            asked = st.pills(
                label, options, selection_mode="multi", key=key, bind="query-params", format_func=_short
            )
            if asked:
                kept &= np.isin(column, asked)
        if st.toggle("Feasible only", key="feasible", bind="query-params"):
            kept &= trials.feasible
    return trials.where(kept)


def _short(name: str) -> str:
    return name.removeprefix("preset:")


def table(trials: TrialColumns) -> dict[str, Any]:
    """Columns as people read them."""
    return {
        "trial": trials.number,
        "state": trials.state,
        "student": trials.student,
        "scheme": trials.scheme,
        "quality": trials.quality,
        "p50 (ms)": trials.p50_ms,
        "p90 (ms)": trials.p90_ms,
        "p99 (ms)": trials.p99_ms,
        "size (MB)": trials.size_mb,
        "model parameters": trials.num_params,
        "feasible": trials.feasible,
        "accuracy": trials.accuracy,
        "macro-F1": trials.macro_f1,
        "agreement": trials.agreement,
        "epochs": trials.epochs_run,
        "training (s)": trials.train_seconds,
        "chosen by": [_short(str(origin)) for origin in trials.origin],
        "ended": trials.finished_at,
    }


if __name__ == "__main__":
    show()
