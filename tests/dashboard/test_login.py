"""Where a login is set up nothing is shown before it; who may be reached by whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import login
from kdsearch.cli import dashboard
from kdsearch.core.errors import UsageError
from kdsearch.store.connect import Store

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
AUTH = {
    "redirect_uri": "http://127.0.0.1:8501/oauth2callback",
    "cookie_secret": "x" * 40,
    "client_id": "kdsearch",
    "client_secret": "y" * 40,
    "server_metadata_url": "https://example.invalid/.well-known/openid-configuration",
}
SECRETS = '[auth]\nredirect_uri = "http://127.0.0.1:8501/oauth2callback"\n'
FREE_PORT = 0


def test_before_the_login_nothing_is_shown(store: Store, sms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDSEARCH_STORAGE", store.url)
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.secrets["auth"] = AUTH
    app.run()
    assert not app.exception
    assert [button.label for button in app.button] == ["Log in"]
    assert not app.get("plotly_chart")
    assert not app.selectbox


def test_without_a_login_set_up_nobody_is_asked(open_app: Callable[..., AppTest], sms: Any) -> None:
    assert "Log in" not in [button.label for button in open_app().button]


def test_providers_have_a_button_each() -> None:
    assert login.providers(AUTH) == []
    assert login.providers({**AUTH, "google": {"client_id": "a"}, "okta": {"client_id": "b"}}) == [
        "google",
        "okta",
    ]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without secrets, and a home without any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_another_address_needs_a_login_or_a_word(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="can be reached by others"):
        dashboard._check("0.0.0.0", FREE_PORT, allow_remote=False)
    dashboard._check("0.0.0.0", FREE_PORT, allow_remote=True)
    dashboard._check("127.0.0.1", FREE_PORT, allow_remote=False)
    (nowhere / ".streamlit").mkdir()
    (nowhere / ".streamlit" / "secrets.toml").write_text(SECRETS)
    assert dashboard.login_is_set_up()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    dashboard._check("0.0.0.0", FREE_PORT, allow_remote=False)


def test_secrets_that_cannot_be_read_are_said(nowhere: Path) -> None:
    (nowhere / ".streamlit").mkdir()
    (nowhere / ".streamlit" / "secrets.toml").write_text("[auth")
    with pytest.raises(UsageError, match=r"secrets\.toml"):
        dashboard.login_is_set_up()
