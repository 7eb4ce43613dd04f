"""How soon the dashboard's pages are there, with many trials in the study: a real browser on a real Postgres.

    .venv/bin/python -m benchmarks.dashboard_paint [--trials 10000] [--loads 5] [--url URL --study NAME]

Of each page the seconds from asking for it to its chart or table being drawn, its scripts in the browser's
cache already: the first load (the server reads the study), median and least of the others, and the processor
seconds that the server needs for one. With --url a dashboard that runs already is measured, without the last.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.store.connect import open_store

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "studies": "[data-testid=stDataFrame] canvas",
    "pareto": ".js-plotly-plot .scatterlayer .trace",
    "trials": "[data-testid=stDataFrame] canvas",
}
"""What is drawn last of each page."""


@contextmanager
def served(url: str, home: Path) -> Iterator[tuple[str, int]]:
    """The dashboard on a database: its address and its process's number."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    flags = [f"--server.port={port}", "--server.headless=true", "--server.fileWatcherType=none"]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboard/app.py"), *flags]
    environment = {**os.environ, "KDSEARCH_STORAGE": url, "KDSEARCH_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with (home / "streamlit.log").open("w") as log:
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    base = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{base}_stcore/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield base, child.pid
    finally:
        child.terminate()
        child.wait()


def paint(page: Page, address: str, drawn: str) -> float:
    """Seconds until a page is drawn, in a new session of the server."""
    page.goto("about:blank")
    began = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(drawn, state="attached")
    return time.perf_counter() - began


def spent(pid: int | None) -> float:
    """Processor seconds of a process up to now."""
    if pid is None:
        return float("nan")
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def measure(base: str, study: str, pages: Sequence[str], loads: int, pid: int | None) -> Iterator[str]:
    """A line a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        paint(page, base, ".stApp")
        for name in pages:
            drawn = PAGES[name]
            address = f"{base}{'' if name == 'pareto' else name}?study={study}"
            first = paint(page, address, drawn)
            before = spent(pid)
            others = [paint(page, address, drawn) for _ in range(loads)]
            cpu = (spent(pid) - before) / loads
            middle, least = statistics.median(others), min(others)
            yield f"| {name} | {first:.2f} | {middle:.2f} | {least:.2f} | {cpu:.2f} |"
        browser.close()


def main() -> None:
    """Fill, serve, look, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--url", help="of a dashboard that runs already")
    parser.add_argument("--study", default="filled")
    parser.add_argument("--pages", nargs="+", choices=PAGES, default=list(PAGES))
    options = parser.parse_args()
    print("| page | first load s | median s | least s | server's CPU s |\n|---|---|---|---|---|")
    if options.url:
        for line in measure(options.url, options.study, options.pages, options.loads, None):
            print(line, flush=True)
        return
    from benchmarks.store_filled import make_study

    with (
        tempfile.TemporaryDirectory(prefix="kdsearch-paint-") as folder,
        open_store(None, None, home=Path(folder)) as store,
    ):
        make_study(store, options.study, options.trials)
        with served(store.url, Path(folder)) as (base, pid):
            for line in measure(base, options.study, options.pages, options.loads, pid):
                print(line, flush=True)


if __name__ == "__main__":
    main()
