"""A tiny BERT from a configuration, with and without a classification head, and a tokenised pool."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from kdsearch.core.specteacher import BuildSpec
from kdsearch.data.dataset import Pool
from kdsearch.data.tokens import TokenPool, tokenise
from kdsearch.teachers.build import build_teacher
from kdsearch.teachers.source import load_encoder_for, load_tokenizer, save_teacher

LABELS = ("ham", "spam", "odd")
TEXTS = (
    "win a free prize now",
    "see you at lunch",
    "",
    "free",
    "call 08001234 to claim your prize " * 4,
    "émoji 🎉 and 中文 mixed",
    "see you at lunch",
    "ok",
)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = BuildSpec(layers=3, hidden=16, heads=2, vocab_size=200)
    folder = tmp_path_factory.mktemp("teacher") / "encoder"
    return build_teacher(spec, TEXTS * 3, LABELS, max_length=24, seed=1, folder=folder)


@pytest.fixture(scope="session")
def classifier(encoder: Path) -> Path:
    """The encoder with a head (untrained, which no test here minds)."""
    folder = encoder.parent / "classifier"
    module = load_encoder_for(encoder, LABELS, seed=2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 10 if parameter.ndim > 1 else 1  # as initialised, it says the same of every text
    save_teacher(module, load_tokenizer(encoder), folder)
    return folder


@pytest.fixture(scope="session")
def pool(encoder: Path) -> TokenPool:
    import numpy as np

    labels_N = np.asarray([1, 0, 0, 1, 1, 2, 0, -1], np.int64)
    return tokenise(Pool("train", TEXTS, labels_N), load_tokenizer(encoder), 24)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A real pretrained encoder: KDSEARCH_TEACHER, or what the shared script fetches."""
    given = os.environ.get("KDSEARCH_TEACHER")
    if given and Path(given).is_dir():
        return Path(given)
    script = Path(__file__).resolve().parents[3] / "shared/bin/minilm"
    if not script.is_file():
        pytest.skip("no pretrained teacher: KDSEARCH_TEACHER names no folder and there is no shared script")
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=300, check=False)
    folder = Path(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 and done.stdout else None
    if folder is None or not folder.is_dir():
        pytest.skip(f"no pretrained teacher: {script} gave none ({done.stderr.strip()[-200:]})")
    return folder
