"""The page docs/cli.md, from the commands themselves: `python -m kdsearch.cli.reference > docs/cli.md`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from kdsearch.cli import main
from kdsearch.cli.options import PANEL

HEAD = """\
# Every command

Made from the commands themselves by `python -m kdsearch.cli.reference`. What their answers mean is told in
[commands.md](commands.md).
"""
EVERYWHERE = "## Everywhere\n\nBefore or after the name of any command:\n"


def page() -> str:
    """The whole of docs/cli.md."""
    found = dict(commands())
    some = next(iter(found.values()))
    parts = [HEAD, _overview(found), EVERYWHERE, _table(_parameters(some, common=True))]
    panel = ""
    for name, command in found.items():
        if (now := main.COMMANDS[name.split()[0]].panel) != panel:
            panel = now
            parts.append(f"## {panel}\n")
        parts += _section(name, command)
    return "\n".join(parts).rstrip("\n") + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """("trial list", its command) for each that does something, in the order of the help."""
    for top in main.COMMANDS:
        command = main.load(top)
        inner = getattr(command, "commands", None)
        if inner:
            yield from ((f"{top} {name}", found) for name, found in inner.items() if not found.hidden)
        else:
            yield top, command


def _overview(found: dict[str, Any]) -> str:
    lines = [
        f"| [`kdsearch {name}`](#kdsearch-{name.replace(' ', '-')}) | {_cell(_first_line(command))} |"
        for name, command in found.items()
    ]
    return "\n".join(["| command | what it does |", "|---|---|", *lines, ""])


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"### kdsearch {name}\n"
    words = [_shown(p) for p in command.params if p.param_type_name == "argument"]
    yield f"`{' '.join(['kdsearch', name, *words, '[OPTIONS]'])}`\n"
    text, _, examples = inspect.cleandoc(command.help).partition("Example:")
    yield f"{_paragraphs(text)}\n"
    for example in examples.split("Example:"):
        yield f"```bash\n{' '.join(example.split())}\n```\n"
    own = list(_parameters(command, common=False))
    if own:
        yield _table(own)


def _parameters(command: Any, *, common: bool) -> Iterator[Any]:
    """What it takes: its own, or what every command takes."""
    for parameter in command.params:
        hidden = getattr(parameter, "hidden", False) or "--help" in parameter.opts
        if not hidden and (getattr(parameter, "rich_help_panel", None) == PANEL) is common:
            yield parameter


def _table(parameters: Any) -> str:
    rows = [f"| {_name(p)} | {_cell(p.help or '')}{_default(p)}{_variable(p)} |" for p in parameters]
    return "\n".join(["| option | meaning |", "|---|---|", *rows, ""])


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_shown(parameter)}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return names if parameter.is_flag else f"{names} {_values(parameter)}"


def _shown(parameter: Any) -> str:
    """An argument as a usage line has it."""
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _values(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    return f"`{parameter.metavar or _KINDS.get(kind, 'TEXT')}`"


_KINDS = {int: "N", float: "X", Path: "PATH"}


def _default(parameter: Any) -> str:
    """As the help shows it, where it does not say so itself."""
    value = parameter.default
    silent = parameter.param_type_name == "argument" or parameter.show_default is False
    if silent or value is None or isinstance(value, bool) or "[default:" in (parameter.help or ""):
        return ""
    return f" [default: {value}]"


def _variable(parameter: Any) -> str:
    return f" Also by `{parameter.envvar}`." if parameter.envvar else ""


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _first_line(command: Any) -> str:
    return str(command.help.strip().splitlines()[0])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
