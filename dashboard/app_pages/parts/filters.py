"""Filters of the pages about parameters, kept in the URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from dashboard.parameters import Setting

ANY = "all"


def ask(rows: Sequence[Setting]) -> list[Setting]:
    """The trials of the students and schemes that are picked; none picked means all."""
    left, right = st.columns(2)
    students = sorted({row.student for row in rows})
    schemes = sorted({row.scheme for row in rows})
    picked = left.multiselect("Students", students, key="students", bind="query-params", placeholder=ANY)
    chosen = right.multiselect("Schemes", schemes, key="schemes", bind="query-params", placeholder=ANY)
    return [
        row for row in rows if (not picked or row.student in picked) and (not chosen or row.scheme in chosen)
    ]


def one_of(
    where: Any, label: str, rows: Sequence[Setting], value: Callable[[Setting], str], *, key: str
) -> list[Setting]:
    """The trials with one picked value, or all of them."""
    values = [ANY, *sorted({value(row) for row in rows} - {""})]
    picked = where.selectbox(label, values, key=key, bind="query-params")
    return [row for row in rows if picked in (ANY, value(row))]
