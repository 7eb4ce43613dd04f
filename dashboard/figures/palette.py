"""Colours and symbols that every chart shares: told apart with any colour vision."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kdsearch.store.reads import StudyRow

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon", "hexagon", "triangle-down")
GREY = "#888888"
"""Seen on white and on black."""
WARM = "#D55E00"
"""For what a chart points at: a limit, a warning, a suggestion."""
CHART_CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}


@dataclass(frozen=True)
class Ink:
    """Colours that depend on what is below them."""

    line: str
    """The front, the teacher's star, whatever is to stand out."""
    paper: str
    """Outlines that set a mark apart from its neighbours."""
    faint: str
    """Grid-like lines and shades."""


LIGHT = Ink(line="#222222", paper="#ffffff", faint="#cccccc")
DARK = Ink(line="#eeeeee", paper="#0e1117", faint="#444444")


def codes(names: Sequence[str], palette: Sequence[str]) -> dict[str, str]:
    """A colour or symbol for each name; the same names in any order get the same ones."""
    return {name: palette[i % len(palette)] for i, name in enumerate(sorted(set(names)))}


def colours(study: StudyRow, names: Sequence[str] = ()) -> Mapping[str, str]:
    """A colour for each student that the study may try, and these: no filter changes them."""
    return codes([*types(study, "students"), *names], OKABE_ITO)


def symbols(study: StudyRow, names: Sequence[str] = ()) -> Mapping[str, str]:
    """A symbol for each scheme that the study may try, and these."""
    return codes([*types(study, "schemes"), *names], SYMBOLS)


def types(study: StudyRow, key: Literal["students", "schemes"]) -> list[str]:
    """The students or schemes of the study's file, in its order."""
    entries = study.spec.get(key) or ()
    return [str(entry["type"] if isinstance(entry, Mapping) else entry) for entry in entries]


def text(words: str) -> str:
    """What a person wrote, for a chart: Plotly takes tags in its texts, and these are none."""
    return html.escape(words)
