"""The embedded Postgres: started by whoever comes first, stopped by whoever leaves last.

Notable:
- Who uses it and whether it lives is said by locks that the kernel frees (`store.statefolder`), never
  by a number in a file alone.
- The server listens on a Unix socket in a short folder of its own (mode 0700), with scram passwords.
- Nothing that we did not make is ever chmod-ed, chown-ed or signalled.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql

from kdsearch.core.errors import ConflictError, StorageError
from kdsearch.store import postmaster
from kdsearch.store.cluster import OWNER, PORT, account_of, last_lines, prepare_place
from kdsearch.store.statefolder import (
    PATIENCE_S,
    Place,
    StateFolder,
    free,
    gate,
    opened,
    read_place,
    try_lock,
    wait_until,
)

DATABASE = "kdsearch"
ELSEWHERE_S = 30.0
"""How long to wait for processes of the server that are not its postmaster: those of a killed one go soon."""
_LOG_LIMIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """What `db status` shows of the embedded server."""

    running: bool
    in_use: bool
    pid: int | None
    data: str | None
    version: str | None


# ---------------------------------------------------------------- starting and stopping


def _url(folder: StateFolder, place: Place) -> str:
    password = folder.password.read_text().strip()
    return f"postgresql+psycopg2://{OWNER}:{password}@/{DATABASE}?host={place.sockets}&port={PORT}"


def _ensure_running(folder: StateFolder) -> str:
    """The server's URL, started if it was not running. Call under the gate."""
    place = read_place(folder)
    if place is None or not _alive(folder, Path(place.data)):
        place = _start(folder)
    elif not wait_until(lambda: postmaster.is_ready(Path(place.data)), seconds=PATIENCE_S):
        raise _not_started(folder)
    _make_database(folder, place)
    return _url(folder, place)


def _alive(folder: StateFolder, data: Path) -> bool:
    """Whether our server runs; waits for processes that a killed server left behind."""

    def decided() -> bool:
        with postmaster.find(data) as found:
            return found is not None or free(folder, "server")

    if not wait_until(decided, seconds=ELSEWHERE_S):
        raise StorageError(
            f"The embedded database in {folder.root} is in use on another machine or in another container",
            hint="share one Postgres server instead: --storage postgresql://USER@HOST/DATABASE",
        )
    with postmaster.find(data) as found:
        return found is not None


def _start(folder: StateFolder) -> Place:
    place, binaries = prepare_place(folder)
    data = Path(place.data)
    _forget_the_dead(place)
    if folder.log.exists() and folder.log.stat().st_size > _LOG_LIMIT:
        folder.log.replace(folder.log.with_suffix(".log.1"))
    folder.log.touch(mode=0o600)
    with opened(folder.lock("server")) as alive:
        if not try_lock(alive, fcntl.LOCK_EX):
            raise _not_started(folder)
        postmaster.launch(
            binaries.program("postgres"),
            data=data,
            sockets=Path(place.sockets),
            account=account_of(place),
            log=folder.log,
            alive=alive,
        )
    wait_until(lambda: postmaster.is_ready(data) or free(folder, "server"), seconds=PATIENCE_S)
    if not postmaster.is_ready(data):
        raise _not_started(folder)
    return place


def _forget_the_dead(place: Place) -> None:
    """Remove what a killed server left; under the gate, and only after `_alive` said that none lives.

    Postgres would take the numbers in there for a living server if anybody has them now.
    """
    socket = Path(place.sockets) / f".s.PGSQL.{PORT}"
    for left in (Path(place.data) / "postmaster.pid", socket, socket.with_name(f"{socket.name}.lock")):
        left.unlink(missing_ok=True)


def _not_started(folder: StateFolder) -> StorageError:
    text = folder.log.read_text(errors="replace") if folder.log.exists() else ""
    return StorageError(
        f"The embedded Postgres did not start: {last_lines(text) or 'it said nothing'}",
        hint=f"see {folder.log}, or name a server with --storage",
    )


def _make_database(folder: StateFolder, place: Place) -> None:
    try:
        connection = psycopg2.connect(
            host=place.sockets, port=PORT, user=OWNER, dbname="postgres",
            password=folder.password.read_text().strip(), connect_timeout=30,
        )  # fmt: skip
    except psycopg2.Error as error:
        raise StorageError(f"Cannot connect to the embedded Postgres: {str(error).strip()}") from error
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    finally:
        connection.close()


def _stop(folder: StateFolder) -> bool:
    """Stop our server if it runs; whether it did. Call under the gate."""
    place = read_place(folder)
    if place is None:
        return False
    with postmaster.find(Path(place.data)) as found:
        if found is not None:
            found.stop()
    if found is not None:
        with suppress(OSError):
            Path(place.sockets).rmdir()
    return found is not None


# ---------------------------------------------------------------- the doors


@contextmanager
def embedded(home: Path) -> Iterator[str]:
    """URL of the embedded server of a state folder, which lives at least as long as this context."""
    folder = StateFolder(home)
    folder.make()
    with opened(folder.lock("clients")) as client:
        with gate(folder):
            fcntl.flock(client, fcntl.LOCK_SH)
            url = _ensure_running(folder)
        try:
            yield url
        finally:
            with gate(folder):
                if try_lock(client, fcntl.LOCK_EX):
                    _stop(folder)


def stop(home: Path, *, force: bool = False) -> bool:
    """Stop the server of a state folder; whether it was running.

    ConflictError while others use it, unless forced.
    """
    folder = StateFolder(home)
    if not folder.root.is_dir():
        return False
    with gate(folder):
        if not force and not free(folder, "clients"):
            raise ConflictError(
                f"The embedded database in {folder.root} is in use",
                hint="end the kdsearch processes that use it; the last one to leave stops it",
            )
        return _stop(folder)


def status(home: Path) -> ServerStatus:
    """What runs for a state folder; changes nothing."""
    folder = StateFolder(home)
    place = read_place(folder) if folder.root.is_dir() else None
    if place is None:
        return ServerStatus(running=False, in_use=False, pid=None, data=None, version=None)
    version = Path(place.data) / "PG_VERSION"
    with gate(folder), postmaster.find(Path(place.data)) as found:
        return ServerStatus(
            running=found is not None,
            in_use=not free(folder, "clients"),
            pid=found.pid if found else None,
            data=place.data,
            version=version.read_text().strip() if version.exists() else None,
        )


def serves(home: Path, url: str) -> bool:
    """Whether a URL is that of this state folder's embedded server."""
    folder = StateFolder(home)
    place = read_place(folder) if folder.root.is_dir() else None
    return place is not None and f"host={place.sockets}&" in url
