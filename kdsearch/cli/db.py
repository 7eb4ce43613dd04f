"""`kdsearch db status | upgrade | stop`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import output
from kdsearch.cli.errors import redacted
from kdsearch.cli.options import Options, group, with_options
from kdsearch.core.errors import StorageError, UsageError

if TYPE_CHECKING:
    from kdsearch.store.connect import Store

WORKER, DASHBOARD = "kdsearch_worker", "kdsearch_dashboard"
app = group("Look at the database, upgrade it, stop it.")


@app.command()
@with_options
def status(options: Options) -> None:
    """Show which database is used and whether its schema fits.

    Exit code 5 if it cannot be reached or its schema is another one.

    Example: kdsearch db status
    """
    if options.nothing_stored:
        data: dict[str, Any] = {"embedded": True, "home": str(options.home), "schema": None, "fits": None}
        output.show(options, "db", data, human=list)
        if not options.json:
            output.say(
                f"no database in {options.home} yet; kdsearch run study.yaml makes one", options=options
            )
        return
    with options.store(check_schema=False) as store:
        from kdsearch.store import migrate

        schema = migrate.status(store.engine)
        data = {
            "embedded": store.embedded,
            "home": str(store.home) if store.embedded else None,
            "url": redacted(store.url),
            "artifacts": redacted(store.artifacts_url),
            "schema": {"current": schema.current, "head": schema.head},
            "fits": schema.is_current,
        }
    if not data["fits"]:
        raise StorageError(
            f"the database has schema {schema.current or 'none'}, this kdsearch needs {schema.head}",
            hint="kdsearch db upgrade",
        )
    output.show(options, "db", data, human=lambda: _lines(data), ids=[schema.current])


def _lines(data: dict[str, Any]) -> list[str]:
    from rich.markup import escape

    kind = f"embedded, in {data['home']}" if data["embedded"] else data["url"]
    return [
        f"[bold]database[/]   {escape(kind)}",
        f"[bold]schema[/]     {data['schema']['current']} (up to date)",
        f"[bold]artifacts[/]  {escape(data['artifacts'])}",
    ]


@app.command()
@with_options
def upgrade(
    options: Options,
    roles: Annotated[
        bool, typer.Option("--roles", help="Make the roles of workers and of the dashboard too.")
    ] = False,
    worker_role: Annotated[
        str, typer.Option("--worker-role", metavar="NAME", help="Reads and writes, makes no tables.")
    ] = WORKER,
    dashboard_role: Annotated[
        str, typer.Option("--dashboard-role", metavar="NAME", help="Reads, and files requests.")
    ] = DASHBOARD,
) -> None:
    """Create kdsearch's tables, or bring them up to this version.

    Safe to run twice, and by several machines at once. With --roles, as the owner of the database: Optuna's
    tables too, and two roles with what each needs and no more. KDSEARCH_WORKER_PASSWORD and
    KDSEARCH_DASHBOARD_PASSWORD set their passwords; without them a role keeps the one it has.

    Example: kdsearch db upgrade --storage postgresql://user@host/kdsearch
    """
    if not roles and (worker_role, dashboard_role) != (WORKER, DASHBOARD):
        raise UsageError("names of roles were given, but no roles are made", hint="add --roles")
    with options.store(check_schema=False) as store:
        from kdsearch.store import migrate

        schema = migrate.upgrade(store.engine)
        if roles:
            _grant(store, worker_role, dashboard_role)
    made = {"worker": worker_role, "dashboard": dashboard_role} if roles else None
    data = {"schema": {"current": schema.current, "head": schema.head}, "fits": True, "roles": made}
    lines = [f"schema {schema.current} is up to date"]
    if roles:
        lines.append(f"{worker_role} reads and writes, {dashboard_role} reads and files requests")
    output.show(options, "db", data, human=lambda: lines, ids=[schema.current])


def _grant(store: Store, worker: str, dashboard: str) -> None:
    from kdsearch.store.roles import Role, grant

    def role(name: str, variable: str) -> Role:
        return Role(name=name, password=os.environ.get(variable) or None, password_from=variable)

    grant(
        store,
        worker=role(worker, "KDSEARCH_WORKER_PASSWORD"),
        dashboard=role(dashboard, "KDSEARCH_DASHBOARD_PASSWORD"),
    )


@app.command()
@with_options
def stop(options: Options) -> None:
    """Stop the embedded server of this folder.

    It stops by itself when its last user leaves; this is for what a crash left running.

    Example: kdsearch db stop
    """
    if options.storage is not None:
        raise UsageError(
            "only the embedded server can be stopped from here",
            hint="leave --storage and KDSEARCH_STORAGE out",
        )
    stopped = False
    if not options.nothing_stored:
        from kdsearch.store import embedded

        stopped = embedded.stop(options.home)
    text = "stopped" if stopped else "no server was running"
    output.show(options, "db_stop", {"stopped": stopped}, human=lambda: [text])
