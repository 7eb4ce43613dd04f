"""One student beside the chart: its figures against the teacher's, and how to get it."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from dashboard import frame, source, wording
from dashboard.app_pages.parts.asking import export_box
from dashboard.queries.studies import Snapshot
from kdsearch.core.records import Latency, Standing
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
    for pair in (shown[:2], shown[2:]):
        for column, figure in zip(st.columns(2), pair, strict=True):
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
    loss = None
    if teacher is not None and quality is not None:
        loss = f"{wording.points(quality - teacher.quality)} against the teacher"
    smaller = wording.times(of_teacher.size_mb if of_teacher else None, row.size_mb)
    return [
        Figure(f"Quality ({wording.plain(study.quality_name)})", wording.share(quality), loss),
        *(_latency(name, latency, of_teacher) for name in ("p50_ms", "p90_ms")),
        Figure("Size", wording.mb(row.size_mb), f"{smaller} smaller" if smaller else None),
    ]


def _latency(name: str, own: Latency | None, teacher: Latency | None) -> Figure:
    ms = None if own is None else own.at(name)
    faster = wording.times(None if teacher is None else teacher.at(name), ms)
    return Figure(
        f"Latency, {name.removesuffix('_ms')}", wording.ms(ms), f"{faster} faster" if faster else None
    )


def certainty(standing: Standing) -> str:
    """How sure its place is."""
    seeds = wording.plural(len(standing.seeds), "training")
    return (
        f"{standing.verdict.capitalize()}: mean of {seeds} {standing.quality:.4f}, "
        f"95 % interval {standing.low:.4f} to {standing.high:.4f}"
    )
