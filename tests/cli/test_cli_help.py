"""Help: quick, light, complete; and what is wrong on a command line is said in one breath."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli import main

HEAVY = ("torch", "transformers", "optuna", "sqlalchemy")
LOADED_BY = """
import runpy, sys
sys.argv = ["kdsearch", *{arguments!r}]
try:
    runpy.run_module("kdsearch", run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
print("\\n" + "\\t".join(m for m in {heavy!r} if m in sys.modules), code, file=sys.stderr)
"""


def commands() -> Iterator[tuple[str, Any]]:
    for top in main.COMMANDS:
        command = main.load(top)
        inner = getattr(command, "commands", None) or {}
        yield top, command
        yield from ((f"{top} {name}", found) for name, found in inner.items())


ALL = dict(commands())
LEAVES = [name for name, command in ALL.items() if not getattr(command, "commands", None)]


def loaded(*arguments: str, of: tuple[str, ...] = HEAVY) -> str:
    """The modules of these that a command loads, and its exit code."""
    code = LOADED_BY.format(arguments=list(arguments), heavy=of)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    return ended.stderr.strip().splitlines()[-1]


def test_help_loads_nothing_heavy() -> None:
    assert loaded("--help", of=(*HEAVY, "pydantic")) == "0"
    assert loaded("--version", of=HEAVY) == "0"


@pytest.mark.parametrize("name", sorted(ALL))
def test_help_of_each_command_loads_no_torch_and_no_database(name: str) -> None:
    assert loaded(*name.split(), "--help") == "0"


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_says_what_it_does(name: str) -> None:
    assert ALL[name].help.strip()


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_an_example_that_calls_it(name: str) -> None:
    example = ALL[name].help.partition("Example:")[2]
    assert f"kdsearch {name}" in example


EXAMPLES = [
    (name, line.strip())
    for name in LEAVES
    for line in re.findall(r"Example: (.+?)(?=\n\s*\n|\Z)", ALL[name].help, flags=re.DOTALL)
]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_examples_are_command_lines_that_it_takes(
    name: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("study.yaml", "reviews.csv", "in.csv"):
        (tmp_path / file).touch()
    words = shlex.split(re.split(r"\s>>?\s", example)[0])
    program = words.index("kdsearch")  # settings may stand before it
    top, *rest = words[program + 1 :]
    command = ALL[name]
    arguments = rest[len(name.split()) - 1 :]
    assert " ".join([top, *rest[: len(name.split()) - 1]]) == name
    context = command.make_context(name, list(arguments))  # raises for what it does not take
    assert context.params


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_the_list_of_commands_says_what_the_command_says(name: str) -> None:
    assert main.COMMANDS[name].help == ALL[name].help.strip().splitlines()[0]


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_takes_the_common_options(name: str) -> None:
    given = {flag for parameter in ALL[name].params for flag in parameter.opts}
    assert {"--storage", "--artifacts", "--json", "--quiet", "-q", "--debug"} <= given


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_and_argument_is_explained(name: str) -> None:
    silent = [p.name for p in ALL[name].params if not getattr(p, "hidden", False) and not p.help]
    assert silent == []


def test_did_you_mean(kdsearch) -> None:
    answer = kdsearch("parto")
    assert answer.code == 2
    assert "pareto" in answer.err
    assert "Did you mean" in answer.err
    assert answer.out == ""


def test_did_you_mean_in_a_group(kdsearch) -> None:
    answer = kdsearch("study", "lits")
    assert answer.code == 2
    assert "'list'" in answer.err


def test_wrong_option_as_json_is_an_error_object(kdsearch) -> None:
    error = kdsearch("pareto", "some-study", "--wihtin", "latency_ms=3", "--json").error(2)
    assert error["code"] == "usage"
    assert "--within" in error["message"]
    assert error["hint"] == "kdsearch pareto --help"


def test_json_may_stand_before_the_command(kdsearch) -> None:
    before = kdsearch("--json", "study", "list")
    between = kdsearch("study", "--json", "list")
    after = kdsearch("study", "list", "--json")
    assert before.data("studies") == between.data("studies") == after.data("studies") == {"studies": []}


def test_nothing_given_shows_help_and_is_a_usage_error(kdsearch) -> None:
    answer = kdsearch()
    assert answer.code == 2
    assert "pareto" in answer.out + answer.err


def test_version(kdsearch) -> None:
    from kdsearch import __version__

    assert kdsearch("--version").out == f"kdsearch {__version__}\n"


def test_no_colours_where_stdout_is_no_terminal(kdsearch) -> None:
    assert "\x1b" not in kdsearch("--help").out
    assert "\x1b" not in kdsearch("parto").err


def test_json_errors_leave_stderr_empty(kdsearch) -> None:
    answer = kdsearch("best", "some-study", "--json")
    assert json.loads(answer.out)["error"]["code"] == "not_found"
    assert answer.err == ""
