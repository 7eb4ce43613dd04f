"""Buttons that file a request for a worker, how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import source, wording
from dashboard.frame import explained
from kdsearch.core.errors import ArtifactError
from kdsearch.store import requests
from kdsearch.store.columns import Pulse
from kdsearch.store.reads import StudyRow
from kdsearch.store.requests import RequestKind, RequestRow

LOOK_S = 2.0
FILED = {"waiting": "waits for a worker", "running": "a worker is at it"}


@st.fragment(run_every=LOOK_S)
def export_box(study: StudyRow, number: int) -> None:
    """Export a trial: by a worker, or by the command."""
    with explained():
        st.code(export_command(study.name, number), language="bash", wrap_lines=True)
        last = last_request(study, "export", {"trial": number})
        pulse = source.load_pulse(study.name)
        if last is None or last.state in ("done", "failed"):
            label = f"Export trial {number}" if last is None else f"Export trial {number} again"
            st.button(
                label,
                key=f"export-{number}",
                icon=":material/package_2:",
                type="primary" if last is None else "secondary",
                on_click=_file,
                args=(study.name, "export", {"trial": number}),
                help="A worker of the study builds and verifies it; the zip file is offered here then.",
            )
        if last is not None:
            _show_export(study, last, pulse)


def _show_export(study: StudyRow, row: RequestRow, pulse: Pulse) -> None:
    show_state(row, pulse, study.name)
    if row.state == "done" and row.result and row.result.get("artifact"):
        name = str(row.result.get("name") or f"{study.name}-{row.arguments.get('trial')}.zip")
        size = wording.mb(float(row.result.get("bytes") or 0) / 1e6)
        try:  # read now, so that a damaged or missing one is a sentence here and no broken download
            path = source.artifacts(study).open(str(row.result["artifact"]))
        except ArtifactError as error:
            st.warning(wording.plain(wording.sentence(error)))
            return
        st.download_button(
            f"Download {wording.plain(name)} ({size})",
            data=path.read_bytes,
            file_name=name,
            mime="application/zip",
            key=f"zip-{row.id}",
            icon=":material/download:",
            type="primary",
            on_click="ignore",
        )


def show_state(row: RequestRow, pulse: Pulse, study: str) -> None:
    """How far a request is, and what to do where nobody carries it out."""
    if row.state == "failed":
        st.error(f"Request {row.id} failed: {wording.plain(row.error or '')}")
    elif row.state == "done":
        st.success(f"Request {row.id} is done.", icon=":material/check:")
    else:
        progress = f": {wording.plain(row.progress)}" if row.progress else ""
        st.info(f"Request {row.id} {FILED[row.state]}{progress}", icon=":material/hourglass_top:")
        if row.state == "waiting" and pulse.num_alive == 0:
            st.caption(
                f"No worker is there to carry it out. Start one: `kdsearch worker start --study {study}`"
            )


def last_request(study: StudyRow, kind: RequestKind, arguments: Mapping[str, Any]) -> RequestRow | None:
    """The newest request that asks for this."""
    rows = requests.requests(source.engine(), study.id)
    same = (row for row in rows if row.kind == kind and arguments.items() <= row.arguments.items())
    return next(same, None)


def _file(study: str, kind: RequestKind, arguments: Mapping[str, Any]) -> None:
    with explained():
        requests.file(source.filing_engine(), study, kind, arguments)


def export_command(study: str, number: int) -> str:
    """What to type instead."""
    return f"kdsearch export {study} --trial {number} --to exported/{study}-{number}"


@st.fragment(run_every=LOOK_S)
def pause_button(study: StudyRow) -> None:
    """Pause the study, or let it go on."""
    with explained():
        pulse = source.load_pulse(study.name)
        if pulse.state not in ("open", "paused"):
            return
        kind: RequestKind = "resume" if pulse.state == "paused" else "pause"
        last = last_request(study, kind, {})
        st.button(
            "Resume" if kind == "resume" else "Pause",
            key="pause",
            icon=":material/play_arrow:" if kind == "resume" else ":material/pause:",
            on_click=_file,
            args=(study.name, kind, {}),
            help=f"By hand: kdsearch study {kind} {study.name}",
            disabled=last is not None and last.state in FILED,
        )
        if last is not None and last.state in FILED:
            show_state(last, pulse, study.name)
