"""From the button to the zip file: a real study, a real browser, a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kdsearch.store.connect import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
STUDY = """
version: 1
name: tiny
data:
  train: synthetic://spam_opinions?rows=200&seed=1
  validation: synthetic://spam_opinions?rows=100&seed=2
  test: synthetic://spam_opinions?rows=100&seed=3
teacher:
  build: {layers: 1, hidden: 32, heads: 2, vocab_size: 500}
  max_length: 32
  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 32}
constraints:
  latency_ms: {max: 1000.0}
students:
  - {type: bag, embed_dim: 16, hidden: 16}
schemes: [none]
training: {epochs: 1, learning_rate: 5e-3, batch_size: 32, seed: 17}
objectives: {quality: accuracy, latency: p90_ms}
latency: {threads: 1, min_queries: 20, min_seconds: 0.05}
budget: {trials: 1, failed: 1}
"""


def kdsearch(store: Store, *arguments: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KDSEARCH_STORAGE": store.url,
        "KDSEARCH_ARTIFACTS": store.artifacts_url,
        "KDSEARCH_HOME": str(store.home),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "kdsearch", *arguments],
        env=environment,
        cwd=store.home.parent,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture
def tiny(store: Store, tmp_path: Path) -> Store:
    """A study of one trial that is done."""
    (tmp_path / "tiny.yaml").write_text(STUDY)
    kdsearch(store, "run", str(tmp_path / "tiny.yaml"), "--workers", "1")
    return store


def test_a_worker_exports_what_the_button_asks_for(tiny: Store, served: str, page: Page) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=120_000)
    page.goto(f"{served}?study=tiny")
    page.get_by_role("button", name="Export trial 0").click()
    expect(page.get_by_text("waits for a worker")).to_be_visible()
    expect(page.get_by_text("No worker is there to carry it out.")).to_be_visible()

    kdsearch(tiny, "worker", "start", "--study", "tiny")
    with page.expect_download(timeout=120_000) as download:
        page.get_by_role("button", name="Download tiny").click()
    assert download.value.suggested_filename == "tiny-trial0.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert "tiny-trial0/model.safetensors" in archive.namelist()
