"""One student beside the chart: its figures against the teacher's, and how to get it."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from dashboard import frame, source, wording
from dashboard.app_pages.parts.asking import export_box
from dashboard.queries.studies import Snapshot
from kdsearch.core.records import Standing
from kdsearch.core.space import encode
from kdsearch.store import reads
from kdsearch.store.reads import StudyRow, TrialRow


class Figure(NamedTuple):
    """One number of a card."""

    label: str
    value: str
    beside: str | None
    """How it compares with the teacher's."""


def card(snapshot: Snapshot, number: int, heading: str) -> None:
    """The student of a trial."""
    row = reads.trial(source.engine(), snapshot.study.id, number)
    standing = snapshot.standings.get(number)
    st.subheader(f"{heading}: trial {number}, {wording.plain(row.student)}, {wording.plain(row.scheme)}")
    shown = figures(snapshot.study, row, standing)
    for column, figure in zip(st.columns(len(shown)), shown, strict=True):
        column.metric(*figure, delta_color="off", delta_arrow="off", border=True)
    if standing is not None:
        st.caption(certainty(standing))
    with st.container(horizontal=True, vertical_alignment="center"):
        frame.link_to_trial(snapshot.study.name, number, "Curves, mistakes, history")
        with st.popover("Parameters", icon=":material/tune:"):
            st.dataframe(
                [{"parameter": k, "value": str(encode(v))} for k, v in sorted(row.params.items())],
                hide_index=True,
                alt="Parameters of the trial",
            )
    if row.state == "complete":
        export_box(snapshot.study, number)


def figures(study: StudyRow, row: TrialRow, standing: Standing | None) -> list[Figure]:
    """Quality, latency and size, each beside the teacher's."""
    teacher, latency = study.teacher, row.latency
    of_teacher = None if teacher is None else teacher.latency
    quality = standing.quality if standing is not None and len(standing.seeds) > 1 else row.quality
    loss = (
        None
        if teacher is None or quality is None
        else f"{wording.points(quality - teacher.quality)} to teacher"
    )
    p50, p90 = (None, None) if latency is None else (latency.p50_ms, latency.p90_ms)
    own = row.latency_ms
    faster = wording.times(of_teacher.at(study.latency_name) if of_teacher else None, own)
    smaller = wording.times(of_teacher.size_mb if of_teacher else None, row.size_mb)
    return [
        Figure(f"Quality ({wording.plain(study.quality_name)})", wording.share(quality), loss),
        Figure("Latency p50 / p90", _pair(p50, p90), f"{faster} faster" if faster else None),
        Figure("Size", wording.mb(row.size_mb), f"{smaller} smaller" if smaller else None),
    ]


def _pair(p50: float | None, p90: float | None) -> str:
    if p50 is None or p90 is None:
        return wording.NONE
    return f"{wording.ms(p50).removesuffix(' ms')} / {wording.ms(p90)}"


def certainty(standing: Standing) -> str:
    """How sure its place is."""
    seeds = wording.plural(len(standing.seeds), "training")
    return (
        f"{standing.verdict.capitalize()}: mean of {seeds} {standing.quality:.4f}, "
        f"95 % interval {standing.low:.4f} to {standing.high:.4f}"
    )
