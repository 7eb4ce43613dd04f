"""Walls around the embedded Postgres: modes, passwords, odd and long paths, root and ordinary users."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
from embedded_bench import (
    data_of,
    discard,
    embedded_url,
    mode,
    works,
    works_after_start,
)
from sqlalchemy import make_url

from kdsearch.core.errors import StorageError
from kdsearch.store import embedded, pgbinaries


def test_only_the_owner_gets_in(used_home: Path) -> None:
    with embedded.embedded(used_home) as url:
        sockets = Path(str(make_url(url).query["host"]))
        assert mode(used_home / "postgres") == 0o700
        assert mode(used_home / "postgres" / "password") == 0o600
        assert mode(used_home / "postgres" / "server.json") == 0o600
        assert mode(sockets) == 0o700
        assert mode(data_of(used_home)) == 0o700
        (unix,) = [path for path in sockets.iterdir() if path.is_socket()]
        assert mode(unix) == 0o700
        assert "listen_addresses" not in (data_of(used_home) / "postgresql.auto.conf").read_text()
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(url.replace("+psycopg2", "").replace(make_url(url).password or "", "wrong"))
        with pytest.raises(psycopg2.OperationalError, match="no password"):
            psycopg2.connect(host=str(sockets), user=embedded.OWNER, dbname="kdsearch", port=embedded.PORT)
        hba = (data_of(used_home) / "pg_hba.conf").read_text()
        methods = {line.split()[-1] for line in hba.splitlines() if line.strip() and not line.startswith("#")}
        assert methods == {"scram-sha-256"}
    assert not sockets.exists()


def test_nothing_listens_on_the_network(used_home: Path) -> None:
    with embedded.embedded(used_home):
        pid = embedded.status(used_home).pid
        inodes = set()
        for name in Path(f"/proc/{pid}/fd").iterdir():
            target = str(name.readlink())
            inodes |= set(re.findall(r"socket:\[(\d+)\]", target))
        tcp = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        assert inodes
        assert not inodes & {line.split()[9] for line in tcp.splitlines() if "address" not in line}


def test_folders_that_were_there_keep_their_modes(tmp_path: Path) -> None:
    parent, state = tmp_path / "project", tmp_path / "project" / "state"
    state.mkdir(parents=True)
    parent.chmod(0o750)
    state.chmod(0o711)
    watched = [
        tmp_path,
        parent,
        state,
        Path("/tmp"),
        Path("/var/lib"),
        Path("/var"),
        pgbinaries.package_folder(),
    ]
    watched += list(tmp_path.parents) + list(pgbinaries.package_folder().parents)
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in watched]
    try:
        assert works_after_start(state)
        assert [(path, path.stat().st_mode, path.stat().st_uid) for path in watched] == before
    finally:
        discard(state)


@pytest.mark.parametrize("name", ["with a space, a comma and 'quotes'", "%41%20percent", "Ünïcode-目录"])
def test_odd_names_of_the_state_folder(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    try:
        assert works_after_start(home)
        assert embedded_url(home) == embedded_url(home)
    finally:
        discard(home)


def test_long_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the state folder nor the temporary folder makes the socket's path too long."""
    home = tmp_path.joinpath(*["a-rather-long-name-of-a-folder" * 3] * 4)
    temporary = tmp_path / ("t" * 120)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert len(str(home)) > 360
    try:
        with embedded.embedded(home) as url:
            sockets = str(make_url(url).query["host"])
            assert len(sockets) < 60
            assert works(url)
    finally:
        discard(home)


def test_a_foreign_folder_in_place_of_our_sockets_is_not_used(used_home: Path) -> None:
    with embedded.embedded(used_home) as url:
        first = Path(str(make_url(url).query["host"]))
    first.mkdir(mode=0o777)
    first.chmod(0o777)
    try:
        with embedded.embedded(used_home) as url:
            assert Path(str(make_url(url).query["host"])) != first
            assert works(url)
        assert mode(first) == 0o777
    finally:
        first.rmdir()


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="state folder") as caught, embedded.embedded(tmp_path / "file"):
        pass
    assert "KDSEARCH_HOME" in caught.value.hint


def test_a_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbinaries, "PACKAGE", "no_such_package")
    with pytest.raises(StorageError) as caught:
        works_after_start(tmp_path / "home")
    assert 'pip install "kdsearch[local]"' in caught.value.hint


def test_a_server_that_cannot_start_says_why(used_home: Path) -> None:
    conf = data_of(used_home) / "postgresql.auto.conf"
    before = conf.read_text()
    conf.write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(StorageError, match="no_such_setting"):
            works_after_start(used_home)
    finally:
        conf.write_text(before)
    assert works_after_start(used_home)


def test_the_data_keep_their_version_of_postgres(used_home: Path) -> None:
    package = pgbinaries.package_folder()
    versions = {
        pgbinaries.major_version(pgbinaries.Binaries(package, p.name)) for p in package.glob("pginstall*")
    }
    assert embedded.status(used_home).version == max(versions, key=int)
    for version in versions:
        found = pgbinaries.find_binaries(package, version=version)
        shown = subprocess.run(
            [found.program("postgres"), "--version"], capture_output=True, text=True, check=True
        )
        assert f" {version}." in shown.stdout
    with pytest.raises(StorageError, match="Postgres 9"):
        pgbinaries.find_binaries(package, version="9")


# ---------------------------------------------------------------- root and others


@pytest.mark.root_only
def test_for_root_an_unprivileged_account_runs_it(used_home: Path) -> None:
    with embedded.embedded(used_home):
        status = embedded.status(used_home)
        owner = Path(f"/proc/{status.pid}").stat().st_uid
        assert owner != 0
        assert data_of(used_home).stat().st_uid == owner
        assert not data_of(used_home).is_relative_to(used_home)
        belongs = (data_of(used_home).parent / "belongs-to").read_text()
        assert belongs == f"{used_home / 'postgres'}\n"
        assert (used_home / "postgres").stat().st_uid == 0


@pytest.mark.root_only
def test_programs_below_a_closed_folder_are_copied_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = closed / "lib" / pgbinaries.PACKAGE
    original = pgbinaries.package_folder()
    shutil.copytree(original, package)
    shutil.copytree(original.with_name(f"{original.name}.libs"), package.with_name(f"{package.name}.libs"))
    copies = Path(tempfile.mkdtemp(prefix="kdsearch-copies-", dir="/var/tmp"))
    copies.chmod(0o755)
    monkeypatch.setattr(pgbinaries, "package_folder", lambda: package)
    monkeypatch.setattr(pgbinaries, "ROOTS_FOLDER", copies)
    try:
        assert works_after_start(home)
        made = sorted(copies.glob("pginstall*"))
        assert len(made) == 1
        before = made[0].stat().st_mtime_ns
        assert works_after_start(home)
        assert sorted(copies.glob("pginstall*")) == made
        assert made[0].stat().st_mtime_ns == before
        assert mode(closed) == 0o700
        discard(home)
    finally:
        shutil.rmtree(copies, ignore_errors=True)


@pytest.mark.root_only
def test_a_roots_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(StorageError, match="others may write"):
        pgbinaries.make_roots_folder(open_to_all)
    assert mode(open_to_all) == 0o777


@pytest.mark.root_only
def test_an_ordinary_user_needs_no_account_and_no_folder_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = pgbinaries.account_named("nobody")
    assert account is not None
    folder = Path(tempfile.mkdtemp(prefix="kdsearch-ordinary-", dir="/var/tmp"))
    os.chown(folder, account.uid, account.gid)
    package = pgbinaries.package_folder()
    newest = pgbinaries.find_binaries(package, version=None)
    try:
        copied = pgbinaries.copy_binaries(newest, pgbinaries.make_roots_folder(pgbinaries.ROOTS_FOLDER))
        monkeypatch.setattr(pgbinaries, "package_folder", lambda: copied.package)
        report = as_user(account.uid, account.gid, lambda: use_ordinarily(folder / "home"))
        assert report == "works"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def use_ordinarily(home: Path) -> str:
    with embedded.embedded(home) as url:
        status = embedded.status(home)
        owner = Path(f"/proc/{status.pid}").stat().st_uid
        if owner != os.geteuid() or not Path(str(status.data)).is_relative_to(home):
            return f"owner {owner}, data in {status.data}"
        if not works(url):
            return "no connection"
    return "still running" if embedded.status(home).running else "works"


def as_user(uid: int, gid: int, action: Callable[[], str]) -> str:
    """What a function returns in a forked process of another user, who need not reach our programs."""
    ours, theirs = socket.socketpair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the runner's threads are not needed
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            theirs.send(action().encode())
        except BaseException as error:  # noqa: BLE001 - reported to the parent, whatever it is
            theirs.send(repr(error).encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        said_by_child = ours.recv(10_000).decode()
    os.waitpid(child, 0)
    return said_by_child
