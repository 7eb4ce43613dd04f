"""Shell completion: commands, options and names of studies; quick and silent whatever the database does."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli import completing
from kdsearch.store.connect import Store

Run = Callable[..., Any]
PLACES = [("pareto", "op"), ("worker", "start", "--study", "op"), ("study", "diff", "op")]
PATHS = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def asked(kdsearch: Run, *words: str, storage: str | None = None) -> list[str]:
    """What bash is offered for the last of these words."""
    answer = kdsearch(
        storage=storage,
        _KDSEARCH_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(("kdsearch", *words)),
        COMP_CWORD=str(len(words)),
    )
    assert answer.err == ""
    return answer.out.split()


def test_commands_and_options_and_studies(kdsearch: Run, filled: str) -> None:
    assert asked(kdsearch, "par") == ["pareto"]
    assert {"pause", "resume", "stop", "extend", "delete"} <= set(asked(kdsearch, "study", ""))
    assert asked(kdsearch, "pareto", "opinions", "--wi") == ["--within"]
    assert asked(kdsearch, "study", "show", "op", storage=filled) == ["opinions"]


@pytest.mark.parametrize("words", PLACES, ids=" ".join)
def test_names_of_studies_stand_in_many_places(inside: Run, filled: str, words: tuple[str, ...]) -> None:
    assert asked(inside, *words, storage=filled) == ["opinions"]


def test_a_database_that_is_away_costs_little_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes the connection and never answers
        port = deaf.getsockname()[1]
        monkeypatch.setenv("KDSEARCH_STORAGE", f"postgresql+psycopg2://me:pw@127.0.0.1:{port}/db")
        began = time.monotonic()
        assert completing.study_names("") == []
        assert time.monotonic() - began < 60
    monkeypatch.setenv("KDSEARCH_STORAGE", "no url at all")
    assert completing.study_names("") == []


def test_without_a_server_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDSEARCH_STORAGE", raising=False)
    monkeypatch.setenv("KDSEARCH_HOME", str(tmp_path / "home"))
    assert completing.study_names("") == []
    assert not (tmp_path / "home").exists()


def test_the_embedded_server_is_remembered(
    store: Store, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.home.mkdir(parents=True, exist_ok=True)
    completing.remember(store)
    monkeypatch.delenv("KDSEARCH_STORAGE", raising=False)
    monkeypatch.setenv("KDSEARCH_HOME", str(store.home))
    assert completing.study_names("opin") == ["opinions"]
    assert completing.study_names("x") == []


def test_study_files_are_offered_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/a.yaml").touch()
    (tmp_path / "b.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDSEARCH_HOME", str(tmp_path / "home"))
    assert completing.studies_and_files("") == ["b.yaml", "studies/a.yaml"]
    assert completing.studies_and_files("st") == ["studies/a.yaml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_this_program(inside: Run, shell: str) -> None:
    text = inside("completion", shell).out
    assert "_KDSEARCH_COMPLETE" in text
    assert inside("completion", shell, "--json").data("completion")["text"].strip() == text.strip()
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_another_shell_is_a_mistake(inside: Run) -> None:
    assert inside("completion", "csh", "--json").error(2)


def test_completing_loads_neither_sqlalchemy_nor_torch(filled: str) -> None:
    code = (
        "import sys\nfrom kdsearch.cli import completing\nassert completing.study_names('') == ['opinions']\n"
        "print([m for m in ('torch', 'optuna', 'sqlalchemy', 'pydantic') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"KDSEARCH_STORAGE": filled, **PATHS},
    )
    assert ran.stdout == "[]\n", ran.stderr
