"""The embedded Postgres: started by whoever comes first, stopped by whoever leaves last.

Notable:
- Three lock files in the state folder, all `flock`, so that the kernel frees them on SIGKILL:
  ``gate`` (held while starting or stopping), ``clients`` (shared by everyone who uses the server),
  ``server`` (inherited by the server's own processes: free if and only if none of them is left, on
  whatever machine or in whatever container they run).
- The server listens on a Unix socket in a short folder of its own (mode 0700), with scram passwords.
- Nothing that we did not make is ever chmod-ed, chown-ed or signalled.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql

from kdsearch.core.errors import ConflictError, StorageError
from kdsearch.store import pgbinaries, postmaster
from kdsearch.store.postmaster import Account

DATABASE = "kdsearch"
OWNER = "kdsearch_owner"
PORT = 5432
PATIENCE_S = 120.0
"""How long starting (crash recovery included) or waiting for another starter may take."""
ELSEWHERE_S = 30.0
"""How long to wait for processes of the server that are not its postmaster: those of a killed one go soon."""
SOCKET_LIMIT = 100
"""Bytes of a Unix socket's path; the kernel's limit is 107."""
_LOG_LIMIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one embedded server keeps its things; recorded in the state folder."""

    data: str
    sockets: str
    account: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """What `db status` shows of the embedded server."""

    running: bool
    in_use: bool
    pid: int | None
    data: str | None
    version: str | None


class _Folder:
    """The state folder's names."""

    def __init__(self, home: Path) -> None:
        self.root = home.absolute() / "postgres"
        self.place = self.root / "server.json"
        self.password = self.root / "password"
        self.log = self.root / "server.log"

    def lock(self, name: str) -> Path:
        return self.root / f"{name}.lock"

    def make(self) -> None:
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"Cannot make the state folder {self.root}: {error.strerror}",
                hint="set KDSEARCH_HOME to a folder you may write, or name a server with --storage",
            ) from error
        if self.root.stat().st_uid != os.geteuid():
            raise StorageError(
                f"The embedded database in {self.root} belongs to another user",
                hint="set KDSEARCH_HOME to a folder of your own, or share a server with --storage",
            )


# ---------------------------------------------------------------- locks


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_until(done: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def _gate(folder: _Folder) -> Iterator[None]:
    """One process at a time starts or stops the server."""
    with _opened(folder.lock("gate")) as descriptor:
        if not _wait_until(lambda: _try_lock(descriptor, fcntl.LOCK_EX), seconds=2 * PATIENCE_S):
            raise StorageError(
                f"Another process has long been starting or stopping the database in {folder.root}",
                hint="look for a hanging kdsearch process, and at server.log in that folder",
            )
        yield


def _free(folder: _Folder, name: str) -> bool:
    with _opened(folder.lock(name)) as descriptor:
        return _try_lock(descriptor, fcntl.LOCK_EX)


# ---------------------------------------------------------------- making


def _write_private(path: Path, text: str) -> None:
    """Atomic, mode 0600 from the first byte."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(partial).replace(path)


def _read_place(folder: _Folder) -> Place | None:
    try:
        return Place(**json.loads(folder.place.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(
            f"Cannot read {folder.place}: {error}", hint="set KDSEARCH_HOME to a new folder"
        ) from error


def _is_ours(path: Path, account: Account | None) -> bool:
    try:
        seen = path.lstat()
    except OSError:
        return False
    owner = os.geteuid() if account is None else account.uid
    return seen.st_uid == owner and seen.st_mode & 0o170777 == 0o040700


def _make_socket_folder(recorded: str | None, account: Account | None) -> Path:
    """A short folder of our own, mode 0700; the one used before where possible, so that URLs stay true."""
    if recorded:
        path = Path(recorded)
        if _is_ours(path, account):
            return path
        with suppress(OSError):
            path.mkdir(mode=0o700)
            return _given(path, account)
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        socket = f"{base}/kdsearch-12345678/.s.PGSQL.{PORT}.lock"
        if len(os.fsencode(socket)) <= SOCKET_LIMIT and re.fullmatch(r"[\w./-]+", base, re.ASCII):
            with suppress(OSError):
                return _given(Path(tempfile.mkdtemp(prefix="kdsearch-", dir=base)), account)
    raise StorageError(
        "There is no temporary folder with a short path for the database's socket",
        hint="make /tmp writable, or name a server with --storage",
    )


def _given(path: Path, account: Account | None) -> Path:
    if account is not None:
        account.owns(path)
    return path


def _data_parent(folder: _Folder, account: Account | None) -> Path:
    """Where the data folder is made: in the state folder, or for root where the account can reach it."""
    if account is None:
        return folder.root
    below = pgbinaries.make_roots_folder(pgbinaries.ROOTS_FOLDER)
    return _given(Path(tempfile.mkdtemp(prefix="data-", dir=below)), account)


def _make_data(folder: _Folder, binaries: pgbinaries.Binaries, account: Account | None) -> Path:
    """A new database cluster: complete under its name, or not there."""
    parent = _data_parent(folder, account)
    partial = _given(Path(tempfile.mkdtemp(prefix="initdb-", dir=parent)), account)
    password = partial.with_name(f"{partial.name}.password")
    if not folder.password.exists():
        _write_private(folder.password, secrets.token_urlsafe(32))
    _write_private(password, folder.password.read_text())
    _given(password, account)
    try:
        done = postmaster.run_as(account, [
            str(binaries.program("initdb")), "--pgdata", str(partial), "--username", OWNER,
            "--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8", "--no-locale",
        ])  # fmt: skip
        if done.returncode != 0:
            raise StorageError(f"initdb could not make the embedded database: {_last_lines(done.stdout)}")
        return partial.rename(parent / "data")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        password.unlink(missing_ok=True)


def _last_lines(text: str, count: int = 5) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-count:])


def _account(name: str | None) -> Account | None:
    return pgbinaries.account_named(name) if name else None


def _prepare_place(folder: _Folder) -> tuple[Place, pgbinaries.Binaries]:
    """Data, socket folder and programs, made where they are missing."""
    package = pgbinaries.package_folder()
    place = _read_place(folder)
    if place is not None and (Path(place.data) / "PG_VERSION").exists():
        account = _account(place.account)
        version = (Path(place.data) / "PG_VERSION").read_text().strip()
        binaries = _runnable(package, version, account)
        data = Path(place.data)
    else:
        account = pgbinaries.account_for(os.geteuid())
        binaries = _runnable(package, None, account)
        data = _make_data(folder, binaries, account)
    sockets = _make_socket_folder(place.sockets if place else None, account)
    place = Place(data=str(data), sockets=str(sockets), account=account.name if account else None)
    _write_private(folder.place, json.dumps(asdict(place), indent=1))
    return place, binaries


def _runnable(package: Path, version: str | None, account: Account | None) -> pgbinaries.Binaries:
    found = pgbinaries.find_binaries(package, version=version)
    return pgbinaries.reachable(found, account, copies=pgbinaries.ROOTS_FOLDER)


# ---------------------------------------------------------------- starting and stopping


def _url(folder: _Folder, place: Place) -> str:
    password = folder.password.read_text().strip()
    return f"postgresql+psycopg2://{OWNER}:{password}@/{DATABASE}?host={place.sockets}&port={PORT}"


def _ensure_running(folder: _Folder) -> str:
    """The server's URL, started if it was not running. Call under the gate."""
    place = _read_place(folder)
    if place is None or not _alive(folder, Path(place.data)):
        place = _start(folder)
    elif not _wait_until(lambda: postmaster.is_ready(Path(place.data)), seconds=PATIENCE_S):
        raise _not_started(folder)
    _make_database(folder, place)
    return _url(folder, place)


def _alive(folder: _Folder, data: Path) -> bool:
    """Whether our server runs; waits for processes that a killed server left behind."""

    def decided() -> bool:
        with postmaster.find(data) as found:
            return found is not None or _free(folder, "server")

    if not _wait_until(decided, seconds=ELSEWHERE_S):
        raise StorageError(
            f"The embedded database in {folder.root} is in use on another machine or in another container",
            hint="share one Postgres server instead: --storage postgresql://USER@HOST/DATABASE",
        )
    with postmaster.find(data) as found:
        return found is not None


def _start(folder: _Folder) -> Place:
    place, binaries = _prepare_place(folder)
    data = Path(place.data)
    _forget_the_dead(place)
    if folder.log.exists() and folder.log.stat().st_size > _LOG_LIMIT:
        folder.log.replace(folder.log.with_suffix(".log.1"))
    folder.log.touch(mode=0o600)
    with _opened(folder.lock("server")) as alive:
        if not _try_lock(alive, fcntl.LOCK_EX):
            raise _not_started(folder)
        postmaster.launch(
            binaries.program("postgres"),
            data=data,
            sockets=Path(place.sockets),
            account=_account(place.account),
            log=folder.log,
            alive=alive,
        )
    _wait_until(lambda: postmaster.is_ready(data) or _free(folder, "server"), seconds=PATIENCE_S)
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


def _not_started(folder: _Folder) -> StorageError:
    text = folder.log.read_text(errors="replace") if folder.log.exists() else ""
    return StorageError(
        f"The embedded Postgres did not start: {_last_lines(text) or 'it said nothing'}",
        hint=f"see {folder.log}, or name a server with --storage",
    )


def _make_database(folder: _Folder, place: Place) -> None:
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


def _stop(folder: _Folder) -> bool:
    """Stop our server if it runs; whether it did. Call under the gate."""
    place = _read_place(folder)
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
    folder = _Folder(home)
    folder.make()
    with _opened(folder.lock("clients")) as client:
        with _gate(folder):
            fcntl.flock(client, fcntl.LOCK_SH)
            url = _ensure_running(folder)
        try:
            yield url
        finally:
            with _gate(folder):
                if _try_lock(client, fcntl.LOCK_EX):
                    _stop(folder)


def stop(home: Path, *, force: bool = False) -> bool:
    """Stop the server of a state folder; whether it was running.

    ConflictError while others use it, unless forced.
    """
    folder = _Folder(home)
    if not folder.root.is_dir():
        return False
    with _gate(folder):
        if not force and not _free(folder, "clients"):
            raise ConflictError(
                f"The embedded database in {folder.root} is in use",
                hint="end the kdsearch processes that use it; the last one to leave stops it",
            )
        return _stop(folder)


def status(home: Path) -> ServerStatus:
    """What runs for a state folder; changes nothing."""
    folder = _Folder(home)
    place = _read_place(folder) if folder.root.is_dir() else None
    if place is None:
        return ServerStatus(running=False, in_use=False, pid=None, data=None, version=None)
    version = Path(place.data) / "PG_VERSION"
    with _gate(folder), postmaster.find(Path(place.data)) as found:
        return ServerStatus(
            running=found is not None,
            in_use=not _free(folder, "clients"),
            pid=found.pid if found else None,
            data=place.data,
            version=version.read_text().strip() if version.exists() else None,
        )


def serves(home: Path, url: str) -> bool:
    """Whether a URL is that of this state folder's embedded server."""
    folder = _Folder(home)
    place = _read_place(folder) if folder.root.is_dir() else None
    return place is not None and f"host={place.sockets}&" in url
