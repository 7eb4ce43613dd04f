"""Health cards: shown only when something is wrong."""

from __future__ import annotations

import streamlit as st

from dashboard import front, health, source
from dashboard.front import View
from dashboard.queries.studies import Snapshot
from kdsearch.store import reads


def health_cards(snapshot: Snapshot) -> None:
    """One line a thing that is wrong, with what to do about it."""
    study = snapshot.study
    best = front.drawn(snapshot, View()).best_number
    found = health.cards(
        snapshot,
        source.load_pulse(study.name),
        workers=reads.workers(source.engine(), study.id),
        best=None if best is None else reads.trial(source.engine(), study.id, best).params,
    )
    for card in found:
        st.warning(f"**{card.title}.** {card.advice}", icon=":material/warning:")
