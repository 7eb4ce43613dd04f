"""`kdsearch completion`: what makes a shell complete commands, options and names of studies."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kdsearch.cli import output
from kdsearch.cli.options import Options

VARIABLE = "_KDSEARCH_COMPLETE"
"""How a shell asks; Typer derives it from the name of the program."""


def completion(
    options: Options,
    shell: Annotated[
        Literal["bash", "zsh", "fish"],
        typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False),
    ],
) -> None:
    """Print what makes a shell complete commands, options and names of studies.

    It goes into `~/.bashrc`, `~/.zshrc` or `~/.config/fish/completions/kdsearch.fish`;
    `kdsearch --install-completion` puts it there by itself.

    Example: kdsearch completion bash >> ~/.bashrc
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    text = get_completion_script(prog_name="kdsearch", complete_var=VARIABLE, shell=shell)
    if options.json:
        output.show(options, "completion", {"shell": shell, "text": text}, human=list)
    else:
        output.write(text.strip())
