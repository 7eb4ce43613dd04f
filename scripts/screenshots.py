"""Pictures of every page of the dashboard, of a study that is there: docs/images/*.png.

    .venv/bin/python scripts/screenshots.py --study sms-spam [--home .kdsearch] [--only pareto]

Starts `kdsearch dashboard` on the state folder, and a Chromium: KDSEARCH_CHROMIUM's, or the system's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 300_000
PAGES = ("studies", "pareto", "trials", "trial", "insights", "compare", "workers")


def kdsearch(home: Path, *arguments: str) -> Any:
    """What a command answers as JSON."""
    environment = {**os.environ, "KDSEARCH_HOME": str(home)}
    command = [sys.executable, "-m", "kdsearch", *arguments, "--json"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)["data"]


@contextmanager
def served(home: Path) -> Iterator[str]:
    """A dashboard of one's own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-m", "kdsearch", "dashboard", "--port", str(port), "-q"],
        cwd=ROOT,
        env={**os.environ, "KDSEARCH_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
    finally:
        child.terminate()
        child.wait()


def address(base: str, name: str, study: str, front: list[int]) -> str:
    """A page at its most telling."""
    query = {"study": study}
    if name == "trial":
        query["trial"] = str(front[-1])
    if name == "compare":
        query["trials"] = ",".join(map(str, front[-3:]))
    return f"{base}{'' if name == 'pareto' else name}?{urlencode(query)}"


def settle(page: Page) -> None:
    """Until the page is drawn."""
    page.wait_for_selector(".stApp[data-test-script-state='notRunning']", state="attached")
    page.wait_for_timeout(2000)
    page.wait_for_function("() => !document.querySelector('[data-testid=stSkeleton]')")
    page.wait_for_timeout(4000)


def main() -> None:
    """Open, wait, photograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True)
    parser.add_argument("--home", type=Path, default=Path(".kdsearch"))
    parser.add_argument("--only", nargs="*", default=[*PAGES, "pareto-dark"])
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    home = options.home.resolve()
    trials = kdsearch(home, "pareto", options.study)["trials"]
    members = sorted((t for t in trials if t["on_front"]), key=lambda t: t["quality"])
    front = [int(trial["trial"]) for trial in members]
    IMAGES.mkdir(parents=True, exist_ok=True)
    with served(home) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("KDSEARCH_CHROMIUM") or shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking"],
        )
        for picture in options.only:
            name, _, theme = picture.partition("-")
            page = browser.new_page(
                viewport={"width": 1400, "height": 1060}, color_scheme="dark" if theme else "light"
            )
            page.set_default_timeout(180_000)
            page.goto(address(base, name, options.study, front))
            settle(page)
            path = IMAGES / f"{picture}.png"
            page.screenshot(path=path)
            page.close()
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
            assert path.stat().st_size < MAX_BYTES
        browser.close()


if __name__ == "__main__":
    main()
