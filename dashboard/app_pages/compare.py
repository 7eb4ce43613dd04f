"""The Compare page: two to four trials side by side, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import cached, comparison, frame, parameters, story, wording
from dashboard.app_pages.parts.metrics import ask_metric
from dashboard.comparison import FEWEST, MOST
from dashboard.figures import confusion as confusion_figures
from dashboard.figures import curves, latencies
from dashboard.figures.curves import Curve
from dashboard.figures.palette import CHART_CONFIG
from dashboard.progress import front_of
from dashboard.queries.studies import Snapshot
from dashboard.story import Story
from kdsearch.store.reads import StudyRow


def show() -> None:
    """Draw the page."""
    frame.page("Compare", _draw)


def _draw(snapshot: Snapshot) -> None:
    numbers = _ask(snapshot)
    if not numbers:
        return
    told = [cached.load_story(snapshot, number) for number in numbers]
    _show_figures(snapshot, told)
    _show_params(told)
    _show_curves(snapshot.study, told)
    _show_confusions(snapshot.study, told)
    _show_latencies(told)
    st.caption("The same with paired differences of quality, on the command line:")
    st.code(f"kdsearch trial compare {snapshot.study.name} {' '.join(map(str, numbers))}", language="bash")


def _ask(snapshot: Snapshot) -> list[int]:
    """The trials that the box names; empty, with a sentence on the page, where they cannot be compared."""
    known = {int(number) for number in snapshot.trials.number}
    asked = st.text_input(
        "Trials",
        key="trials",
        bind="query-params",
        placeholder="3, 7",
        help=f"Their numbers, {FEWEST} to {MOST}; the first one is what the others are compared with.",
    )
    numbers, mistake = comparison.parse(asked or "", known)
    if mistake:
        st.warning(wording.plain(mistake))
    if len(numbers) >= FEWEST:
        return numbers
    front = [int(snapshot.trials.number[i]) for i in front_of(snapshot.trials, snapshot.study.latency_name)]
    if len(front) >= FEWEST:
        best = front[-MOST:]
        st.info("Name the trials to compare by their numbers, or begin with the front:")
        words = "Compare trials " + ", ".join(map(str, best))
        st.button(words, icon=":material/compare_arrows:", on_click=_take, args=(best,))
    elif len(known) < FEWEST:
        command = f"kdsearch worker start --study {snapshot.study.name}"
        st.info(f"Two trials are needed. A worker makes them: `{command}`")
    return []


def _take(numbers: Sequence[int]) -> None:
    """Into the box, which is bound to the URL."""
    st.session_state["trials"] = ",".join(map(str, numbers))


def _names(told: Sequence[Story]) -> list[str]:
    return [f"trial {each.trial.number}" for each in told]


def _show_figures(snapshot: Snapshot, told: Sequence[Story]) -> None:
    st.subheader("Figures")
    front = {int(snapshot.trials.number[i]) for i in front_of(snapshot.trials, snapshot.study.latency_name)}
    rows = comparison.figure_rows(snapshot.study, told, front)
    st.dataframe(rows, hide_index=True, height="content", alt="Figures of the trials, a column each.")
    columns = st.columns(len(told))
    for column, each in zip(columns, told, strict=True):
        with column:
            frame.link_to_trial(snapshot.study.name, each.trial.number)


def _show_params(told: Sequence[Story]) -> None:
    st.subheader("Parameters that differ")
    differing = parameters.differing([each.trial.params for each in told])
    if not differing:
        st.info("None: they differ in their seed alone, or in nothing.")
        return
    names = _names(told)
    rows = [
        {"parameter": name, **dict(zip(names, map(story.written, values), strict=True))}
        for name, values in differing.items()
    ]
    words = "The parameters in which the trials differ."
    st.dataframe(rows, hide_index=True, height="content", alt=words)
    same = len({name for each in told for name in each.trial.params}) - len(differing)
    st.caption(f"{wording.plural(same, 'other parameter')} {'is' if same == 1 else 'are'} the same.")


def _show_curves(study: StudyRow, told: Sequence[Story]) -> None:
    st.subheader("Learning curves")
    if not any(each.epochs for each in told):
        st.info("No epoch of theirs has been recorded.")
        return
    metric, title = ask_metric(study)
    drawn = [
        Curve(name, each.epochs, each.trial.best_epoch) for name, each in zip(_names(told), told, strict=True)
    ]
    figure = curves.learning(
        drawn,
        metric=metric,
        title=title,
        teacher=study.teacher.scores if study.teacher else None,
        rungs=story.rungs(study),
        ink=frame.ink(),
    )
    words = f"{title} of each trial after each epoch, with the teacher's as a dotted line."
    st.plotly_chart(figure, key="curves", config=CHART_CONFIG, alt=words)


def _show_confusions(study: StudyRow, told: Sequence[Story]) -> None:
    st.subheader("Where their mistakes differ")
    found = [(each.trial.number, cached.confusion_of(study, each.trial)) for each in told]
    (base_number, base), others = found[0], [(n, each) for n, each in found[1:] if each is not None]
    if base is None or not others:
        st.info("Which classes they take for which was not recorded: they are older, or not complete.")
        return
    for column, (number, other) in zip(st.columns(len(others)), others, strict=True):
        names = (f"trial {base_number}", f"trial {number}")
        figure = confusion_figures.difference(base, other, names=names)
        words = (
            f"Confusion matrix of trial {number} minus that of trial {base_number}, in points of each class."
        )
        column.plotly_chart(figure, key=f"confusion-{number}", config=CHART_CONFIG, alt=words)
    st.caption("Points of each true class: positive on the diagonal is better, elsewhere worse.")


def _show_latencies(told: Sequence[Story]) -> None:
    st.subheader("Latencies")
    measured = {f"trial {each.trial.number}": each.trial.latency for each in told}
    drawn = {name: latency for name, latency in measured.items() if latency is not None}
    if not drawn:
        st.info("None of them was measured.")
        return
    if len({latency.profile.key for latency in drawn.values()}) > 1:
        st.info("They were measured on different hardware, which is not comparable.")
        return
    words = "Share of the queries that each trial answered within so many milliseconds."
    figure = latencies.spread(drawn, marked=False)
    st.plotly_chart(figure, key="latencies", config=CHART_CONFIG, alt=words)
    if not all(latency.quantiles_ms for latency in drawn.values()):
        st.caption("Trials drawn as three marks are older: only p50, p90 and p99 were recorded.")


if __name__ == "__main__":
    show()
