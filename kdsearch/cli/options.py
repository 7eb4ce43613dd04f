"""The options that every command takes, before or after its name, and the store they lead to.

A command is a plain function whose first argument is an `Options`; `with_options` adds the rest to
its signature, so that they stand in its help and its completion too.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from kdsearch.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from kdsearch.store.connect import Store

PANEL = "Everywhere"
Form = Literal["human", "json", "csv", "quiet"]
"""How an answer is written; `--json` and `-q` are short for two of them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for besides the command's own arguments."""

    storage: str | None = None
    """Postgres URL; None means the embedded server."""
    artifacts: str | None = None
    """URL of the artifact store; None means a folder of the home."""
    form: str | None = None
    """One of `Form`, or what else a command offers; None: for people."""
    debug: bool = False

    @property
    def json(self) -> bool:
        """Whether one JSON object is wanted."""
        return self.form == "json"

    @property
    def csv(self) -> bool:
        """Whether a table for programs is wanted."""
        return self.form == "csv"

    @property
    def quiet(self) -> bool:
        """Whether only names and numbers are wanted, and nothing said beside them."""
        return self.form == "quiet"

    def over(self, outer: Options | None) -> Options:
        """These, and where they say nothing those that stood before the command's name."""
        if outer is None:
            return self
        return Options(
            storage=self.storage or outer.storage,
            artifacts=self.artifacts or outer.artifacts,
            form=self.form or outer.form,
            debug=self.debug or outer.debug,
        )

    @property
    def home(self) -> Path:
        """Absolute path of the state folder: KDSEARCH_HOME, else ./.kdsearch."""
        from kdsearch.store.statefolder import resolve_home

        return resolve_home(os.environ)

    @contextmanager
    def store(self, *, check_schema: bool = True) -> Iterator[Store]:
        """The store, opened; an embedded server is started if need be."""
        from kdsearch.store.connect import open_store

        with open_store(self.storage, self.artifacts, home=self.home, check_schema=check_schema) as store:
            yield store
            if store.embedded:
                from kdsearch.cli import completing

                completing.remember(store)

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """The store, for commands that write: the trials of dead workers are taken back first."""
        with self.store() as store:
            from kdsearch.store import leases
            from kdsearch.store.transactions import begin

            with begin(store.engine) as connection:
                leases.sweep(connection, None)
            yield store

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """The store, for commands that only read: where nothing was ever stored, none is made."""
        if self.nothing_stored:
            raise NotFoundError(
                f"no studies here: {self.home} does not exist",
                hint="kdsearch run study.yaml starts one; --storage URL or KDSEARCH_STORAGE names a server",
            )
        with self.store() as store:
            yield store

    @property
    def nothing_stored(self) -> bool:
        """Whether an embedded server is meant and no study was ever launched from this folder."""
        return self.storage is None and not self.home.exists()


def child_environment(store: Store) -> dict[str, str]:
    """The environment for a process that shall see the same store: URLs never go to its arguments."""
    root = Path(__file__).parents[2]
    # children do not look for modules in the folder they are started in: it may hold a datasets.py
    uninstalled = {} if root.name.endswith("-packages") else {"PYTHONPATH": str(root)}
    artifacts = {"KDSEARCH_ARTIFACTS": store.artifacts_url} if store.artifacts_settled else {}
    return {
        **os.environ,
        **uninstalled,
        **artifacts,
        "KDSEARCH_STORAGE": store.url,
        "KDSEARCH_HOME": str(store.home),
    }


StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="KDSEARCH_STORAGE",
        show_default=False,
        rich_help_panel=PANEL,
        help="Postgres to use. Without one, an embedded server in ./.kdsearch.",
    ),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="KDSEARCH_ARTIFACTS",
        show_default=False,
        rich_help_panel=PANEL,
        help="Where trained students are kept, e.g. file:///srv/kdsearch.",
    ),
]
FormOption = Annotated[
    Form | None,
    typer.Option(
        "--format",
        rich_help_panel=PANEL,
        show_default=False,
        help="A table for people, one JSON object, CSV, or names and numbers only. [default: human]",
    ),
]


def _common(
    ctx: typer.Context,
    storage: StorageOption = None,
    artifacts: ArtifactsOption = None,
    form: FormOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=PANEL, help="Short for --format json.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=PANEL, help="Short for --format quiet.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", rich_help_panel=PANEL, help="Tracebacks on errors.")
    ] = False,
) -> Options:
    short = "json" if as_json else "quiet" if quiet else None
    if form is not None and short not in (None, form):
        raise UsageError(
            f"--format {form} and {'--json' if as_json else '--quiet'} exclude each other",
            hint="leave one of them out",
        )
    given = Options(storage=storage, artifacts=artifacts, form=form or short, debug=debug)
    return given.over(ctx.obj)


def with_options(command: Callable[..., Any]) -> Callable[..., None]:
    """The command with every common option in its signature; its own come first.

    A command that declares a common option itself, such as `form` with one more value, replaces it. One that
    gives its name (`--format`) another meaning has it for itself.
    """
    hints = {**get_type_hints(_common, include_extras=True), **get_type_hints(command, include_extras=True)}
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
    names = {p.name for p in own}
    taken = {flag for name in names for flag in _flags(hints[name])}
    every = [p.name for p in inspect.signature(_common).parameters.values() if p.name != "ctx"]
    if clash := names & set(every) - {"form"}:
        raise TypeError(f"{command.__name__} names parameters as common options are named: {sorted(clash)}")
    common = [
        p
        for p in inspect.signature(_common).parameters.values()
        if p.name not in names and not taken & _flags(hints[p.name])
    ]

    def wrapped(ctx: typer.Context, **given: Any) -> None:
        options = _common(ctx, **{name: given[name] for name in every if name in given})
        ctx.obj = options  # a group's commands find here what stood before their name
        command(options, **{name: value for name, value in given.items() if name in names})

    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in (*own, *common)
    ]
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: hints[p.name] for p in parameters}
    return wrapped


def _flags(annotation: Any) -> set[str]:
    """The names under which an option is given."""
    found: set[str] = set()
    for each in getattr(annotation, "__metadata__", ()):
        # in an annotation, Typer takes the first name for a default until it builds the command
        names = (getattr(each, "default", None), *(getattr(each, "param_decls", None) or ()))
        found |= {name for name in names if isinstance(name, str) and name.startswith("-")}
    return found


def group(help_text: str) -> typer.Typer:
    """An empty group of commands that takes the common options too."""

    def keep(options: Options) -> None:
        """Nothing but keep what stands before the command's name."""

    app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")
    app.callback(help=help_text, no_args_is_help=True)(with_options(keep))
    return app
