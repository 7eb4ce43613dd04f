"""The Workers page: who runs what, when each was last seen, and what went wrong."""

from __future__ import annotations

import streamlit as st

from dashboard import crew, frame, source, wording
from dashboard.crew import Crew
from dashboard.queries.studies import Snapshot
from kdsearch.store import reads, reads_live
from kdsearch.store.reads_live import TroubleRow

LIVE_S = 5.0
MOST_TRACEBACKS = 10
SHARE = {"done": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)}
TIME = {"when": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss")}


def show() -> None:
    """Draw the page."""
    frame.page("Workers", _draw)


def _draw(snapshot: Snapshot) -> None:
    _show_crew(snapshot.study.name, snapshot.study.id)
    st.subheader("One more worker")
    name = snapshot.study.name
    st.caption("On any machine that reaches the database; it leaves when nothing is left to do.")
    st.code(f"kdsearch worker start --study {name}", language="bash")
    _show_troubles(snapshot)


@st.fragment(run_every=LIVE_S)
def _show_crew(name: str, study_id: int) -> None:
    """Drawn anew every few seconds: there is nothing in it to click."""
    with frame.explained():
        engine, now = source.engine(), source.load_pulse(name).now
        found = Crew(reads.workers(engine, study_id), reads_live.running(engine, study_id), now)
        if not found.workers:
            st.info("No worker has worked on this study yet.")
        else:
            cells = zip(st.columns(4), crew.counts(found).items(), strict=True)
            for column, (label, count) in cells:
                column.metric(label, count, border=True)
            words = "The workers, and what each runs now."
            st.dataframe(crew.rows(found), hide_index=True, column_config=SHARE, alt=words)
            silent = crew.silent(found)
            if silent:
                st.warning(wording.plain(crew.about_silent(found)), icon=":material/signal_disconnected:")
        preparation = reads.preparation(engine, study_id)
        if preparation.state in ("waiting", "running"):
            st.caption(f"The teacher is being prepared: {wording.plain(preparation.progress or 'waiting')}")


def _show_troubles(snapshot: Snapshot) -> None:
    st.subheader("What went wrong")
    found = reads_live.troubles(source.engine(), snapshot.study.id)
    if not found:
        st.success("No attempt has failed, hung or been lost.", icon=":material/check:")
        return
    st.dataframe(
        crew.trouble_rows(found), hide_index=True, column_config=TIME, alt="Attempts that did not end well."
    )
    told = [row for row in found if row.traceback]
    for row in told[:MOST_TRACEBACKS]:
        _show_traceback(snapshot.study.name, row)
    if len(told) > MOST_TRACEBACKS:
        st.caption(f"The newest {MOST_TRACEBACKS} of {len(told)} tracebacks; each trial's page has its own.")


def _show_traceback(study: str, row: TroubleRow) -> None:
    with st.expander(wording.plain(f"Trial {row.number}, attempt {row.attempt}: {row.ended}, {row.worker}")):
        st.code(row.traceback, language=None)
        frame.link_to_trial(study, row.number)


if __name__ == "__main__":
    show()
