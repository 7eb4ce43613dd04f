"""docs/export.md: each of its commands and each of its snippets, tried as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(folder: Path) -> Path:
    """`kdsearch` and `python` as a shell finds them."""
    folder.mkdir()
    for name, module in (("kdsearch", "-m kdsearch"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def test_every_block_runs_in_the_order_of_the_page(world_of_the_docs, tmp_path: Path) -> None:
    world, place = world_of_the_docs, tmp_path / "place"
    world.complete("textcnn")
    place.mkdir()
    env = {
        **os.environ,
        "PATH": f"{commands(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "KDSEARCH_STORAGE": world.store.url,
        "KDSEARCH_ARTIFACTS": world.store.artifacts_url,
        "KDSEARCH_HOME": str(world.store.home),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) == 10
    for kind, code in blocks:
        argv = ["bash", "-euc", code] if kind == "bash" else [sys.executable, "-c", code]
        ran = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True)
        assert ran.returncode == 0, f"{code}\n{ran.stdout}\n{ran.stderr}"
        assert ran.stdout.strip(), f"says nothing: {code}"


def test_the_tree_is_that_of_an_export(world_of_the_docs, tmp_path: Path) -> None:
    from kdsearch.export.bundle import export_student

    world = world_of_the_docs
    number = world.complete("bag")
    export_student(world.store, world.study, world.trial(number), to=tmp_path / "out")
    (tree,) = re.findall(r"```text\nexported/sms-spam/\n(.*?)```", PAGE, re.DOTALL)
    drawn = {line.split()[0] for line in tree.splitlines()}
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert drawn == found


def test_formats_and_files_are_those_of_the_code() -> None:
    from kdsearch.export.formats import FORMATS

    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*?) \|", PAGE, re.MULTILINE))
    assert list(rows) == list(FORMATS)
    for name, found in FORMATS.items():
        words = set(re.findall(r"[\w./]+", rows[name]))
        assert {f for f in found.files if f not in words and f.rpartition("/")[2] not in words} <= {
            "pytorch/model.safetensors"  # "weights" in the table
        }
