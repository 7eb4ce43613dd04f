"""Logging in by OIDC, where Streamlit's secrets have a section ``[auth]``; no passwords of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import wording


def is_required() -> bool:
    """Whether every page asks who is there."""
    return bool(st.secrets.load_if_toml_exists()) and "auth" in st.secrets


def is_done() -> bool:
    """Whether somebody has logged in."""
    return bool(st.user.get("is_logged_in", False))


def ask() -> None:
    """In place of every page: a button a provider."""
    st.header("kdsearch")
    st.write("Log in to see the studies.")
    named = providers(st.secrets["auth"])
    for name in named or (None,):
        words = "Log in" if name is None else f"Log in with {wording.plain(name)}"
        st.button(words, on_click=st.login, args=() if name is None else (name,), type="primary", key=words)


def providers(section: Mapping[str, Any]) -> list[str]:
    """Names of ``[auth.NAME]``; none where ``[auth]`` itself is the only one."""
    return [name for name, value in section.items() if isinstance(value, Mapping)]


def offer_leaving() -> None:
    """Who is logged in, and a way out."""
    name = st.user.get("email") or st.user.get("name") or "this account"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Logged in as {wording.plain(str(name))}")
        st.button("Log out", on_click=st.logout, type="tertiary", key="logout")
