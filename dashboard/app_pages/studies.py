"""The Studies page: every study, newest first: how far it is, its best student, who works on it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import frame, source, wording
from dashboard.app_pages.parts.ailing import health_cards
from dashboard.app_pages.parts.asking import pause_button
from dashboard.queries.studies import Snapshot
from kdsearch.store.columns import Best, Pulse
from kdsearch.store.reads import StudyRow

LOOK_S = 10.0
CONFIG = {
    "progress": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0),
    "best": st.column_config.NumberColumn(format="%.4f"),
    "latency (ms)": st.column_config.NumberColumn(format="%.3f"),
    "teacher": st.column_config.NumberColumn(format="%.4f"),
    "created": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
}


def show() -> None:
    """Draw the page."""
    st.header("Studies")
    with frame.explained():
        studies = source.load_studies()
        if not studies:
            st.info(frame.NO_STUDIES)
            return
        _table()
        heading, picker = st.columns([3, 2], vertical_alignment="center")
        with picker:
            name = frame.pick_study([study.name for study in studies])
        heading.subheader(wording.plain(name))
        pulse = source.load_pulse(name)
        _show(source.load_snapshot(name, pulse), pulse)


@st.fragment(run_every=LOOK_S)
def _table() -> None:
    """Every study, every few seconds."""
    with frame.explained():
        best = source.load_best()
        rows = [
            row(study, source.load_pulse(study.name), best.get(study.id)) for study in source.load_studies()
        ]
        st.dataframe(
            rows,
            hide_index=True,
            key="studies-table",
            column_config=CONFIG,
            alt="Every study, newest first.",
            on_select=lambda: _pick([str(each["study"]) for each in rows]),
            selection_mode="single-row",
            placeholder=wording.NONE,
        )
        st.caption("A click at the left end of a row picks the study for every page.")


def _pick(names: list[str]) -> None:
    rows = st.session_state["studies-table"]["selection"]["rows"]
    if rows:
        frame.pick("study", names[rows[0]])


def row(study: StudyRow, pulse: Pulse, best: Best | None) -> dict[str, Any]:
    """A study in a line."""
    return {
        "study": study.name,
        "state": pulse.state,
        "progress": round(min(1.0, pulse.num_finished / pulse.budget_trials), 2),
        "trials": f"{pulse.num_finished:,} of {pulse.budget_trials:,}",
        "objective": study.quality_name,
        "best": None if best is None else best.quality,
        "teacher": None if study.teacher is None else study.teacher.quality,
        "best student": "" if best is None else f"{best.student}, {best.scheme}",
        "latency (ms)": None if best is None else best.latency_ms,
        "workers": pulse.num_alive,
        "spent": spent(study),
        "created": study.created_at,
    }


def spent(study: StudyRow) -> str:
    """Of the budgets that have a limit in time or work, how much is used."""
    parts = [wording.duration(study.active_seconds)]
    if study.budget_hours is not None:
        parts[0] += f" of {study.budget_hours:g} h"
    if study.budget_epochs is not None:
        parts.append(f"{study.epochs_run:,} of {wording.plural(study.budget_epochs, 'epoch')}")
    if study.budget_gpu_hours is not None:
        parts.append(f"{study.gpu_seconds / 3600:.1f} of {study.budget_gpu_hours:g} GPU h")
    return " · ".join(parts)


def _show(snapshot: Snapshot, pulse: Pulse) -> None:
    study = snapshot.study
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(frame.progress(pulse), width="content")
        st.page_link(
            "app_pages/pareto.py",
            label="Pareto front",
            icon=":material/scatter_plot:",
            query_params={"study": study.name},
        )
        pause_button(study)
    if pulse.error:
        st.warning(wording.plain(pulse.error), icon=":material/warning:")
    health_cards(snapshot)
    _next_command(study, pulse)
    with st.expander("Study file", icon=":material/description:"):
        st.code(study.spec_text, language="yaml")


def _next_command(study: StudyRow, pulse: Pulse) -> None:
    """What to type next."""
    if pulse.state == "paused":
        st.code(f"kdsearch study resume {study.name}", language="bash")
    elif pulse.state == "open":
        st.code(f"kdsearch worker start --study {study.name}", language="bash")
    elif pulse.counts.get("complete"):
        st.code(f"kdsearch export {study.name} --to exported/{study.name}", language="bash")
    else:
        st.code(f"kdsearch trial list {study.name}", language="bash")


if __name__ == "__main__":
    show()
