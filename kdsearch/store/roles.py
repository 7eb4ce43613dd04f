"""Roles: the owner makes the tables, workers read and write them, the dashboard reads and files requests.

What each may do stands in ``roles.sql``. Granting again is free, and takes back what is no longer granted.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection

from kdsearch.core.errors import ConflictError, UsageError
from kdsearch.store.connect import Store
from kdsearch.store.migrate import one_at_a_time
from kdsearch.store.optuna_storage import optuna_storage, table_names
from kdsearch.store.sql import execute, parse

_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role that logs in; its name is that of one role of the whole server, not of one database."""

    name: str
    password: str | None = field(default=None, repr=False)
    """None leaves a role that exists the password it has."""
    password_from: str
    """The environment variable that the password comes from, for messages."""


def grant(store: Store, *, worker: Role, dashboard: Role) -> None:
    """Make both roles, or set them right, and let each do its part and nothing else; as the owner.

    kdsearch's tables have to be there; Optuna's are made here. Raises UsageError for a name that is none or
    a new role without a password, ConflictError where a name is that of a role with further powers.
    """
    _check_names(worker.name, dashboard.name)
    optuna_storage(store)
    with one_at_a_time(store.engine) as connection:
        connection.execution_options(no_parameters=True)
        names = _names(connection)
        _run(connection, "everybody", names)
        for role, part in ((worker, "worker"), (dashboard, "dashboard")):
            _log_in(connection, role)
            own = {**names, "role": f'"{role.name}"'}
            _run(connection, "nothing", own)
            _run(connection, part, own)


def _check_names(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be the name of a role",
                hint="small letters, digits and underscores, at most 63, not pg_ first",
            )
    if len(set(names)) < len(names):
        raise UsageError(
            f"{names[0]!r} cannot be the role of workers and of the dashboard",
            hint="one that only reads is what keeps the dashboard from writing",
        )


def _names(connection: Connection) -> dict[str, str]:
    """What stands for the placeholders of ``roles.sql``, but for the role."""
    found = execute(connection, "optuna_relations", tables=table_names()).all()
    return {
        "database": execute(connection, "database_name").scalar_one(),
        "tables": ", ".join(row.name for row in found if not row.is_sequence),
        "sequences": ", ".join(row.name for row in found if row.is_sequence),
        "versions": ", ".join(row.name for row in found if row.is_version),
    }


@functools.cache
def _parts() -> Mapping[str, str]:
    return parse(importlib.resources.files("kdsearch.store").joinpath("roles.sql").read_text())


def _run(connection: Connection, part: str, names: Mapping[str, str]) -> None:
    connection.exec_driver_sql(_parts()[part].format(**names))


def _log_in(connection: Connection, role: Role) -> None:
    """The role exists and may log in. Of its password a SCRAM verifier is sent, so that no log has it."""
    has_more = execute(connection, "role_found", name=role.name).scalar_one_or_none()
    if has_more:
        raise ConflictError(
            f"There is a role {role.name} already, and it may do more than it should here",
            hint="name others with --worker-role and --dashboard-role, or take from it what it has",
        )
    if has_more is None and not role.password:
        raise UsageError(
            f"The role {role.name} is new and has no password", hint=f"set {role.password_from} to one"
        )
    verb = "CREATE" if has_more is None else "ALTER"
    connection.exec_driver_sql(f'{verb} ROLE "{role.name}" LOGIN{_password(connection, role)}')


def _password(connection: Connection, role: Role) -> str:
    if not role.password:
        return ""
    here = connection.connection.driver_connection
    verifier = encrypt_password(role.password, role.name, scope=here, algorithm="scram-sha-256")
    return f" PASSWORD '{verifier}'"
