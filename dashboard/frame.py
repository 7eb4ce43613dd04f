"""What stands around every page: title, study picker, live line, or a sentence where there is no page.

The picked study is in the URL under ``study``, and a picked trial under ``trial``, on whichever page: a link
opens the same study and trial again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlencode

import streamlit as st

from dashboard import source, wording
from dashboard.figures import palette
from dashboard.figures.palette import Ink
from dashboard.queries.studies import Snapshot
from kdsearch.core.errors import KdsearchError
from kdsearch.store.columns import Pulse

LIVE_S = 5.0
NO_STUDIES = "No studies yet. Start one: `kdsearch run studies/quickstart.yaml`"
TRIAL_PAGE = "app_pages/trial.py"


@contextmanager
def explained() -> Iterator[None]:
    """A mistake that kdsearch can explain becomes a sentence on the page."""
    try:
        yield
    except KdsearchError as error:
        st.error(wording.plain(wording.sentence(error)).replace("\\`", "`"), icon=":material/error:")


def page(title: str, draw: Callable[[Snapshot], None]) -> None:
    """A page about one study: the picker and the live line above what `draw` draws."""
    with explained():
        heading, picker = st.columns([3, 2], vertical_alignment="center")
        heading.header(title)
        names = [study.name for study in source.load_studies()]
        if not names:
            st.info(NO_STUDIES)
            return
        with picker:
            name = pick_study(names)
        pulse = source.load_pulse(name)
        snapshot = source.load_snapshot(name, pulse)
        live(name, pulse)
        if pulse.error:
            st.warning(wording.plain(pulse.error), icon=":material/warning:")
        draw(snapshot)


def pick_study(names: Sequence[str]) -> str:
    """The study that the URL names, or else the one looked at last, or else the newest."""
    wanted = _picked("study")
    # Not a bound widget: those leave their default out of the URL, and forget it from page to page.
    st.session_state["study"] = wanted if wanted in names else names[0]
    chosen = str(
        st.selectbox(
            "Study",
            names,
            key="study",
            on_change=_pick_from_box,
            args=("study",),
            label_visibility="collapsed",
        )
    )
    name = chosen if chosen in names else names[0]
    pick("study", name)
    _write("study")
    return name


def pick_trial(snapshot: Snapshot, label: str = "Trial") -> int | None:
    """A box for a trial's number, which is in the URL too; None while it is empty."""
    last = int(snapshot.trials.number[-1]) if len(snapshot.trials) else None
    wanted = picked_trial()
    st.session_state["trial"] = wanted if last is not None and wanted is not None and wanted <= last else None
    chosen = st.number_input(
        label,
        min_value=0,
        max_value=last or 0,
        value=None,
        key="trial",
        on_change=_pick_from_box,
        args=("trial",),
        placeholder="number",
    )
    pick("trial", chosen)
    _write("trial")
    return None if chosen is None else int(chosen)


def picked_trial() -> int | None:
    """The trial picked last, on whichever page; the URL's where it names another one."""
    asked = str(_picked("trial"))
    return int(asked) if asked.isascii() and asked.isdigit() else None


def pick(what: Literal["study", "trial"], value: str | int | None) -> None:
    """Pick a study or a trial from a callback: the boxes and the URL follow."""
    st.session_state[f"picked_{what}"] = None if value is None else str(value)


def _pick_from_box(what: Literal["study", "trial"]) -> None:
    pick(what, st.session_state[what])


def _picked(what: Literal["study", "trial"]) -> str | None:
    """What is picked; a URL that was changed from outside (a link, the browser's buttons) decides anew."""
    asked = st.query_params.get(what)
    if asked is not None and asked != st.session_state.get(f"written_{what}"):
        st.session_state[f"written_{what}"] = asked
        pick(what, asked)
    picked: str | None = st.session_state.get(f"picked_{what}")
    return picked


def _write(what: Literal["study", "trial"]) -> None:
    """Put what is picked into the URL."""
    value = st.session_state.get(f"picked_{what}")
    st.session_state[f"written_{what}"] = value
    if value is None:
        st.query_params.pop(what, None)
    elif st.query_params.get(what) != value:
        st.query_params[what] = value


# ---------------------------------------------------------------- the live line


@st.fragment(run_every=LIVE_S)
def live(name: str, drawn: Pulse) -> None:
    """How far the study is, every few seconds; the page below stays until somebody asks for what is new."""
    with explained(), st.container(horizontal=True, vertical_alignment="center"):
        now = source.load_pulse(name)
        st.markdown(progress(now), width="content")
        new = now.num_finished - drawn.num_finished
        if now.token != drawn.token:
            label = f"{wording.plural(new, 'new trial')}: show" if new > 0 else "Something changed: show"
            if st.button(label, key="refresh", icon=":material/refresh:", type="tertiary"):
                st.rerun()


def progress(pulse: Pulse) -> str:
    """How far the study is, in a line."""
    badge = {"open": "blue", "paused": "orange", "done": "green", "failed": "red"}[pulse.state]
    counts = ", ".join(f"{n:,} {state}" for state, n in sorted(pulse.counts.items()) if n)
    trials = (
        f"{pulse.num_trials:,} of {wording.plural(pulse.budget_trials, 'trial')} ({counts or 'none yet'})"
    )
    working = wording.plural(pulse.num_alive, "worker")
    return f":{badge}-badge[{pulse.state}] {trials} · {working}"


# ---------------------------------------------------------------- links and looks


def trial_url(study: str, number: int) -> str:
    """The trial's page, relative to any other page."""
    return f"trial?{urlencode({'study': study, 'trial': number})}"


def link_to_trial(study: str, number: int, label: str | None = None) -> None:
    """A link to the trial's page."""
    query = {"study": study, "trial": str(number)}
    st.page_link(
        TRIAL_PAGE, label=label or f"Trial {number}", icon=":material/open_in_new:", query_params=query
    )


def ink() -> Ink:
    """Colours for charts on what the browser shows: light or dark."""
    return palette.DARK if st.context.theme.type == "dark" else palette.LIGHT
