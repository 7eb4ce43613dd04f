"""The command line as people meet it: a process, its stdout, its stderr and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    def data(self, thing: str) -> Any:
        """The payload of its one JSON object, which must have this schema."""
        assert self.code == 0, self.err
        found = json.loads(self.out)
        assert set(found) == {"schema", "data"}
        assert found["schema"] == f"kdsearch.{thing}/v1"
        return found["data"]

    def error(self, code: int) -> Any:
        """The JSON error object, after this exit code."""
        assert self.code == code, self.out + self.err
        found = json.loads(self.out)
        assert found["schema"] == "kdsearch.error/v1"
        assert {"code", "message", "hint", "where"} <= set(found["error"])
        return found["error"]


Run = Callable[..., Answer]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No settings of the caller's, and a state folder that does not exist yet."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KDSEARCH_", "TYPER_", "FORCE_COLOR"))}
    return {**kept, "KDSEARCH_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


@pytest.fixture
def kdsearch(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Run `kdsearch ARGUMENTS` in the test's folder; ``storage`` comes by environment."""

    def run(*arguments: str, storage: str | None = None, **more: str) -> Answer:
        env = {**environment, **more}
        if storage is not None:
            env["KDSEARCH_STORAGE"] = storage
        ended = subprocess.run(
            [sys.executable, "-m", "kdsearch", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env,
            timeout=300,
        )
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    return run
