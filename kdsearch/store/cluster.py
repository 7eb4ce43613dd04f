"""Making what an embedded Postgres needs: a data folder, a folder for its socket, a password."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from kdsearch.core.errors import StorageError
from kdsearch.store import pgbinaries, postmaster
from kdsearch.store.postmaster import Account
from kdsearch.store.statefolder import Place, StateFolder, read_place, write_private

OWNER = "kdsearch_owner"
PORT = 5432
SOCKET_LIMIT = 100
"""Bytes of a Unix socket's path; the kernel's limit is 107."""


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


def _data_parent(folder: StateFolder, account: Account | None) -> Path:
    """Where the data folder is made: in the state folder, or for root where the account can reach it."""
    if account is None:
        return folder.root
    below = pgbinaries.make_roots_folder(pgbinaries.ROOTS_FOLDER)
    parent = Path(tempfile.mkdtemp(prefix="data-", dir=below))
    (parent / "belongs-to").write_text(f"{folder.root}\n")  # for whoever wonders whether it may go
    return _given(parent, account)


def _make_data(folder: StateFolder, binaries: pgbinaries.Binaries, account: Account | None) -> Path:
    """A new database cluster: complete under its name, or not there."""
    parent = _data_parent(folder, account)
    partial = _given(Path(tempfile.mkdtemp(prefix="initdb-", dir=parent)), account)
    password = partial.with_name(f"{partial.name}.password")
    if not folder.password.exists():
        write_private(folder.password, secrets.token_urlsafe(32))
    write_private(password, folder.password.read_text())
    _given(password, account)
    try:
        done = postmaster.run_as(account, [
            str(binaries.program("initdb")), "--pgdata", str(partial), "--username", OWNER,
            "--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8", "--no-locale",
        ])  # fmt: skip
        if done.returncode != 0:
            raise StorageError(f"initdb could not make the embedded database: {last_lines(done.stdout)}")
        return partial.rename(parent / "data")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        password.unlink(missing_ok=True)


def last_lines(text: str, count: int = 5) -> str:
    """The end of a log, on one line."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-count:])


def account_of(place: Place) -> Account | None:
    """As whom the server of a place runs; None means as whoever asks."""
    if place.account is None:
        return None
    account = pgbinaries.account_named(place.account)
    if account is None:
        raise StorageError(
            f"The embedded database in {place.data} belongs to the account {place.account!r}, which is gone",
            hint="set KDSEARCH_HOME to a new folder, or name a server with --storage",
        )
    return account


def prepare_place(folder: StateFolder) -> tuple[Place, pgbinaries.Binaries]:
    """Data, socket folder and programs, made where they are missing."""
    package = pgbinaries.package_folder()
    place = read_place(folder)
    if place is not None and (Path(place.data) / "PG_VERSION").exists():
        account = account_of(place)
        version = (Path(place.data) / "PG_VERSION").read_text().strip()
        binaries = _runnable(package, version, account)
        data = Path(place.data)
    else:
        account = pgbinaries.account_for(os.geteuid())
        binaries = _runnable(package, None, account)
        data = _make_data(folder, binaries, account)
    sockets = _make_socket_folder(place.sockets if place else None, account)
    place = Place(data=str(data), sockets=str(sockets), account=account.name if account else None)
    write_private(folder.place, json.dumps(asdict(place), indent=1))
    return place, binaries


def _runnable(package: Path, version: str | None, account: Account | None) -> pgbinaries.Binaries:
    found = pgbinaries.find_binaries(package, version=version)
    return pgbinaries.reachable(found, account, copies=pgbinaries.ROOTS_FOLDER)
