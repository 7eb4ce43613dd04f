"""Where a trial goes wrong: confusion matrix, recall of each class, texts on which the teacher differs."""

from __future__ import annotations

import streamlit as st

from dashboard import cached, confusion, disagreements, wording
from dashboard.confusion import Confusion
from dashboard.disagreements import Disagreements
from dashboard.figures import confusion as figures
from dashboard.figures.palette import CHART_CONFIG
from dashboard.story import Story
from kdsearch.core.errors import KdsearchError
from kdsearch.store.reads import StudyRow

SHARES = {
    "share": st.column_config.NumberColumn(format="percent"),
    "sure": st.column_config.NumberColumn(format="percent"),
}


def show(study: StudyRow, told: Story) -> None:
    """Everything that is known of its mistakes."""
    scores = told.trial.scores
    if scores is None:
        return
    st.subheader("Mistakes on the validation pool")
    left, right = st.columns(2)
    with left:
        _show_confusion(cached.confusion_of(study, told.trial))
    with right:
        teacher = study.teacher.scores.recall if study.teacher else None
        words = "Recall of each class, the student's as a bar and the teacher's as a mark."
        figure = figures.recalls(scores.recall, teacher)
        st.plotly_chart(figure, key="recall", config=CHART_CONFIG, alt=words)
        if len(scores.recall) > figures.MOST_BARS:
            st.caption(f"The {figures.MOST_BARS} lowest of {len(scores.recall)} classes.")
    _show_texts(study, told)


def _show_confusion(found: Confusion | None) -> None:
    if found is None:
        st.info("Which classes it takes for which was not recorded: the trial is older than that.")
        return
    words = "Confusion matrix: true classes as rows, predicted ones as columns; the pairs are in the table."
    st.plotly_chart(figures.matrix(found), key="confusion", config=CHART_CONFIG, alt=words)
    pairs = [
        {"true": p.truth, "taken for": p.predicted, "rows": p.count, "share": p.share}
        for p in confusion.most_confused(found, 10)
    ]
    if pairs:
        st.dataframe(pairs, hide_index=True, column_config=SHARES, alt="Most frequent mistakes.")


def _show_texts(study: StudyRow, told: Story) -> None:
    if not disagreements.allowed():
        st.caption("Texts are not shown by this dashboard (KDSEARCH_SHOW_TEXTS is off).")
        return
    if not (study.spec.get("data") or {}).get("show_texts", True):
        st.caption("Texts are not shown: the study's file says `show_texts: false`.")
        return
    if not st.toggle("Show texts on which it differs from the teacher", key="texts", bind="query-params"):
        return
    try:
        found = cached.load_disagreements(study, told.trial)
    except KdsearchError as error:
        st.info(f"The texts cannot be read from here. {wording.plain(wording.sentence(error))}")
        return
    if found is None:
        st.info("The texts were not stored: the study or the trial is older than that.")
        return
    _show_disagreements(found)


def _show_disagreements(found: Disagreements) -> None:
    agree = found.num_rows - found.num
    st.caption(
        f"They agree on {agree:,} of {found.num_rows:,} rows. Of the other {found.num:,} the teacher is "
        f"right on {found.num_teacher_right:,}, the student on {found.num_student_right:,}."
    )
    rows = [
        {
            "text": each.text,
            "label": each.label,
            "teacher": each.teacher,
            "student": each.student,
            "right": each.right,
            "sure": each.sure,
        }
        for each in found.shown
    ]
    config = {**SHARES, "text": st.column_config.TextColumn(width="large")}
    st.dataframe(
        rows, hide_index=True, column_config=config, alt="Texts on which student and teacher differ."
    )
    if found.num > len(found.shown):
        st.caption(f"The first {len(found.shown)}: where it is surest of a mistake.")
