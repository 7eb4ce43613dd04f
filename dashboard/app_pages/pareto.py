"""The Pareto page: which student is best within a latency budget, and what it is chosen from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard import frame, source
from dashboard.figures import pareto as figures
from dashboard.figures.pareto import Point
from dashboard.queries.studies import Snapshot as Drawn
from dashboard.queries.studies import limit_ms
from kdsearch.store import reads
from kdsearch.store.reads import StudyRow, TrialRow

CHART_CONFIG = {"displaylogo": False, "toImageButtonOptions": {"filename": "pareto"}}
TABLE_CONFIG = {
    "quality": st.column_config.NumberColumn(format="%.4f"),
    "size (MB)": st.column_config.NumberColumn(format="%.2f"),
}
CHART_ALT = "Quality against latency of every finished trial; the table beside it holds the same figures."
TABLE_ALT = "Every finished trial: the front first, the best of it on top."


def show() -> None:
    """Draw the page, or the sentence that says why it cannot be drawn."""
    frame.page("Pareto front", _draw)


def _draw(drawn: Drawn) -> None:
    rows = tuple(reads.trials(source.engine(), drawn.study.id))
    snapshot = Snapshot(drawn.study, rows)
    _show_study(snapshot, _ask_budget(snapshot))


@dataclass(frozen=True)
class Snapshot:
    """A study and its trials."""

    study: StudyRow
    trials: tuple[TrialRow, ...]

    @property
    def limit_ms(self) -> float | None:
        """The study's own latency limit."""
        return limit_ms(self.study)


def _show_study(snapshot: Snapshot, within_ms: float | None) -> None:
    front = reads.front(snapshot.trials, within_ms=within_ms)
    shown = figures.points(snapshot.trials, front=front, within_ms=within_ms)
    if not shown:
        st.info(f"No finished trial yet. More workers: `kdsearch worker start --study {snapshot.study.name}`")
        return
    chart, beside = st.columns([3, 2])
    tightest = min((ms for ms in (within_ms, snapshot.limit_ms) if ms is not None), default=None)
    figure = figures.pareto(snapshot.study, shown, within_ms=tightest)
    chart.plotly_chart(figure, key="pareto", config=CHART_CONFIG, alt=CHART_ALT)
    with beside:
        _show_best(snapshot, front)
        st.dataframe(
            table_rows(shown, snapshot.study.latency_name),
            hide_index=True,
            column_config=TABLE_CONFIG,
            alt=TABLE_ALT,
        )


def _ask_budget(snapshot: Snapshot) -> float | None:
    limit = snapshot.limit_ms
    budget: float | None = st.number_input(
        f"Latency budget (ms, {snapshot.study.latency_name.removesuffix('_ms')})",
        min_value=0.0,
        value=None,
        step=0.1,
        format="%.3f",
        key="within",
        bind="query-params",
        placeholder="any" if limit is None else f"the study's limit: {limit:g}",
        help="Students above it are left out before the front is drawn.",
    )
    return budget


def _show_best(snapshot: Snapshot, front: Sequence[TrialRow]) -> None:
    """The best student within the budget beside the teacher, and the command that exports it."""
    if not front:
        st.warning("No student lies within the budget. Raise it, or let the study try more trials.")
        return
    best = front[-1]
    st.subheader(f"Best: trial {best.number}, {best.student}, {best.scheme}")
    columns = st.columns(3)
    for column, (label, value, delta) in zip(columns, best_figures(snapshot, best), strict=True):
        column.metric(label, value, delta, delta_color="off", delta_arrow="off", border=True)
    name = snapshot.study.name
    st.code(f"kdsearch export {name} --trial {best.number} --to exported/{name}", language="bash")


def best_figures(snapshot: Snapshot, best: TrialRow) -> list[tuple[str, str, str | None]]:
    """(what, figure, how it compares with the teacher) for quality, latency and size."""
    study, teacher = snapshot.study, snapshot.study.teacher
    teacher_quality = None if teacher is None else f"teacher: {teacher.quality:.4f}"
    teacher_ms = teacher.latency.at(study.latency_name) if teacher and teacher.latency else None
    teacher_mb = teacher.latency.size_mb if teacher and teacher.latency else None
    return [
        (f"Quality ({study.quality_name})", f"{best.quality:.4f}", teacher_quality),
        ("Latency", f"{best.latency_ms:.3g} ms", _times(teacher_ms, best.latency_ms, "faster")),
        (
            "Size",
            "unknown" if best.size_mb is None else f"{best.size_mb:.2f} MB",
            _times(teacher_mb, best.size_mb, "smaller"),
        ),
    ]


def _times(teacher: float | None, student: float | None, word: str) -> str | None:
    return f"{teacher / student:.3g}× {word}" if teacher and student else None


def table_rows(shown: Sequence[Point], latency_name: str) -> list[dict[str, object]]:
    """The chart's points as a table: the front first, the best of it on top."""
    order = sorted(shown, key=lambda p: (not p.on_front, not p.feasible, -p.quality))
    return [
        {
            "trial": p.row.number,
            "student": p.row.student,
            "scheme": p.row.scheme,
            "quality": round(p.quality, 4),
            f"{latency_name.removesuffix('_ms')} (ms)": round(p.latency_ms, 3),
            "size (MB)": p.row.size_mb,
            "standing": p.standing,
            "parameters": ", ".join(f"{k}={v}" for k, v in sorted(p.row.params.items()) if "." in k),
        }
        for p in order
    ]


if __name__ == "__main__":
    show()
