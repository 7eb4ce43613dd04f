"""The tutorial, followed literally: every command of the page, one after another, on a small CSV file."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/tutorial.md").read_text()
BLOCKS = re.compile(r"```(bash|yaml)\n(.*?)```", re.DOTALL)
TEXTS = [
    ("Works as promised, and the delivery was quick.", "good"),
    ("Broke after two days, and nobody answers.", "bad"),
    ("Light, quiet and well made; I bought a second one.", "good"),
    ("The lid does not close and it smells of glue.", "bad"),
]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a CSV file, a small teacher, and `kdsearch` and `python` of this checkout on the PATH."""
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "sentiment"])
        for number in range(240):
            text, label = TEXTS[number % len(TEXTS)]
            writer.writerow([f"Item {number}. {text}", label])
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in (("kdsearch", "-P -m kdsearch"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    make_teacher(tmp_path / "teacher")
    return tmp_path


def make_teacher(folder: Path) -> None:
    """A BERT of two narrow layers, with nothing learned yet."""
    from transformers import BertConfig, BertModel

    from kdsearch.teachers.build import train_word_pieces, word_piece_tokenizer

    pieces = train_word_pieces([f"Item {n}. {text}" for n in range(100) for text, _ in TEXTS], 300)
    word_piece_tokenizer(pieces, max_length=128).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)


def set_keys(study: Path, block: str) -> None:
    """Put what the page says in place of what the file says."""
    for key, rest in re.findall(r"^(\w+):(.*(?:\n .*)*)", block, flags=re.MULTILINE):
        written = re.sub(
            rf"^{key}:.*(?:\n .*)*",
            lambda _, k=key, r=rest: f"{k}:{r}",
            study.read_text(),
            flags=re.MULTILINE,
        )
        assert f"{key}:{rest}" in written
        study.write_text(written)


def test_every_step_of_the_tutorial_works(desk: Path) -> None:
    env = {
        **os.environ,
        "PATH": f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "KDSEARCH_TEACHER": str(desk / "teacher"),
        "KDSEARCH_HOME": str(desk / "home"),
        "OMP_NUM_THREADS": "1",
    }
    env.pop("KDSEARCH_STORAGE", None)
    blocks = BLOCKS.findall(PAGE)
    assert len(blocks) >= 8
    place, said = desk, []
    for kind, block in blocks:
        if kind == "yaml":
            set_keys(place / "study.yaml", block)
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=place,
            env=env,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
        place = desk / "reviews" if "cd reviews" in block else place
    assert re.search(r"\b(good|bad)\b", said[-1]), "predict.py names a label"
    subprocess.run(
        [sys.executable, "-P", "-m", "kdsearch", "db", "stop"], env=env, cwd=place, check=True, timeout=120
    )
