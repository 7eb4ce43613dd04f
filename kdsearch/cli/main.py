"""The command line: names and one-line helps here, everything else loaded when a command is called.

A command stands in COMMANDS with the module and the name of what runs it: a plain function whose
first argument is `options: Options`, or a Typer group. Its docstring ends with an example.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from kdsearch import __version__
from kdsearch.cli import errors
from kdsearch.cli.options import Options, with_options

HELP_NAMES = {"help_option_names": ["--help", "-h"]}
EPILOG = (
    "Exit codes: 0 ok, 2 usage, 3 not found, 4 conflict, 5 storage, 6 nothing feasible, "
    "7 not verified, 8 too many failures."
)


@dataclass(frozen=True)
class Command:
    """Where a command lives, and what the list of commands says of it."""

    module: str
    attribute: str
    help: str
    panel: str


COMMANDS: dict[str, Command] = {
    "init": Command(
        "kdsearch.cli.init", "init", "Write a study file to begin with, and a sample of texts.", "Launch"
    ),
    "run": Command("kdsearch.cli.run", "run", "Run a study file to its end, or go on with it.", "Launch"),
    "study": Command("kdsearch.cli.study", "app", "Plan, create, show, steer and report studies.", "Launch"),
    "worker": Command(
        "kdsearch.cli.worker", "app", "Start, list and drain workers, on this machine or others.", "Launch"
    ),
    "pareto": Command(
        "kdsearch.cli.front", "pareto", "Show the Pareto front: quality against latency.", "Browse"
    ),
    "best": Command("kdsearch.cli.front", "best", "Show the best student within a budget.", "Browse"),
    "trial": Command(
        "kdsearch.cli.trial", "app", "List, show, compare and repeat the trials of a study.", "Browse"
    ),
    "dashboard": Command("kdsearch.cli.dashboard", "dashboard", "Open the studies in a browser.", "Browse"),
    "export": Command(
        "kdsearch.cli.export", "export", "Export a student, proven equal to what was measured.", "Export"
    ),
    "verify": Command(
        "kdsearch.cli.verify",
        "verify",
        "Check that an exported student is what was exported, anywhere.",
        "Export",
    ),
    "predict": Command(
        "kdsearch.cli.predict", "predict", "Classify texts with an exported student.", "Export"
    ),
    "db": Command("kdsearch.cli.db", "app", "Look at the database, upgrade it, stop it.", "Maintain"),
    "schema": Command(
        "kdsearch.cli.schema", "schema", "Print the JSON Schema of the study file.", "Maintain"
    ),
    "completion": Command(
        "kdsearch.cli.completion",
        "completion",
        "Print what makes a shell complete commands, options and names of studies.",
        "Maintain",
    ),
    "doctor": Command(
        "kdsearch.cli.doctor", "doctor", "Check this machine, the database and the artifacts.", "Maintain"
    ),
}


def load(name: str) -> Any:
    """The real command behind a name: its module is imported now."""
    command = COMMANDS[name]
    found = getattr(importlib.import_module(command.module), command.attribute)
    app = found if isinstance(found, typer.Typer) else _single(name, found)
    loaded = typer.main.get_command(app)
    loaded.name = name
    return loaded


def _single(name: str, function: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(name)(with_options(function))
    return app


class LazyGroup(TyperGroup):
    """Lists its commands without importing them; imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=command.help, rich_help_panel=command.panel)
            for name, command in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The imported command instead of its line in the list."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name is not None else command, rest


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kdsearch {__version__}")
        raise typer.Exit


def _root(
    options: Options,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search for the best distilled student of a text classifier.

    Launch a study, browse its Pareto front, export the best student:

    kdsearch run study.yaml    kdsearch pareto NAME    kdsearch export NAME --to DIR
    """


def application() -> Any:
    """The root command."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        context_settings=HELP_NAMES,
        epilog=EPILOG,
    )
    app.callback(epilog=EPILOG, no_args_is_help=True)(with_options(_root))
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line and exit with the code of the error tree."""
    sys.exit(errors.guarded(lambda: application()(prog_name="kdsearch", standalone_mode=False)))
