"""The dashboard in a real browser: the page opens, the chart is drawn, the budget moves the choice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.store.connect import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def served(store: Store, tmp_path: Path) -> Iterator[str]:
    """The app as `streamlit run` serves it, away from the repository's folder."""
    base = f"http://127.0.0.1:{free_port()}/"
    log = tmp_path / "streamlit.log"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("w") as output:
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "streamlit",
                "run",
                str(ROOT / "dashboard/app.py"),
                "--server.port",
                base[17:-1],
            ],
            env={**os.environ, "KDSEARCH_STORAGE": store.url, "PYTHONPATH": path},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(child, base, log)
        yield base
    finally:
        child.terminate()
        child.wait(timeout=120)


def wait_until_ready(child: subprocess.Popen[bytes], base: str, log: Path) -> None:
    for _ in range(2400):
        assert child.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{base}_stcore/health", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def test_the_chart_is_drawn_and_follows_the_budget(served: str, page: Page, sms: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    outside: list[str] = []
    page.on("request", lambda request: None if "127.0.0.1" in request.url else outside.append(request.url))
    page.goto(served)
    expect(page.get_by_role("heading", name="Best: trial 2, textcnn, offline")).to_be_visible()
    expect(page.locator(".js-plotly-plot .scatterlayer .trace")).not_to_have_count(0)
    drawn = page.locator(".js-plotly-plot .scatterlayer .points path.point")
    expect(drawn).to_have_count(6)
    expect(page.locator(".js-plotly-plot")).to_contain_text("latency, p90 (ms, log)")
    folder = Path(os.environ.get("KDSEARCH_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / "pareto.png", full_page=True)

    budget = page.get_by_label("Latency budget (ms, p90)", exact=True)
    budget.fill("0.1")
    budget.press("Enter")
    expect(page.get_by_role("heading", name="Best: trial 1, bag, offline")).to_be_visible()
    expect(page).to_have_url(f"{served}?study=sms&within=0.1")
    expect(page.locator("[role=gridcell]", has_text="over limit")).to_have_count(3)
    page.screenshot(path=folder / "budget.png", full_page=True)
    assert [url for url in outside if url.startswith("http")] == []
