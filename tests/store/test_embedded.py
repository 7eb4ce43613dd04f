"""The embedded Postgres: shared, stopped by the last, never confused with another process."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import create_engine, make_url, text

from kdsearch.core.errors import ConflictError, StorageError
from kdsearch.store import embedded, pgbinaries, postmaster
from kdsearch.store.embedded import ServerStatus

CLIENT = """
import sys
from pathlib import Path
from kdsearch.store.embedded import embedded
with embedded(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""
INNOCENT = "import sys; print('ready', flush=True); sys.stdin.read()"


def discard(home: Path) -> None:
    """End a test's server, and remove what root keeps outside the state folder."""
    record = home / "postgres" / "server.json"
    embedded.stop(home, force=True)
    if record.exists():
        place = json.loads(record.read_text())
        if place["account"] is not None:
            shutil.rmtree(Path(place["data"]).parent, ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose server is gone after the test."""
    yield tmp_path / "home"
    discard(tmp_path / "home")


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder with a database that was used and is stopped; tests leave it stopped."""
    folder = tmp_path_factory.mktemp("used") / "home"
    with embedded.embedded(folder):
        pass
    yield folder
    discard(folder)


@contextmanager
def process(code: str, *arguments: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that said its first line and lives until its stdin is closed."""
    command = [sys.executable, "-c", code, *arguments]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd(), **options
    )  # type: ignore[call-overload]
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def said(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline().strip()


def leave(client: subprocess.Popen[str]) -> None:
    client.communicate("")
    assert client.returncode == 0


def works(url: str) -> bool:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT 1")).scalar() == 1
    finally:
        engine.dispose()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.05)


def data_of(home: Path) -> Path:
    found = embedded.status(home).data
    assert found is not None
    return Path(found)


# ---------------------------------------------------------------- living together


def test_the_first_starts_it_and_the_last_stops_it(used_home: Path) -> None:
    with process(CLIENT, str(used_home)) as one, process(CLIENT, str(used_home)) as two:
        first, second = said(one), said(two)
        assert first == second
        assert works(first)
        leave(one)
        assert works(first)
        assert embedded.status(used_home).in_use
        leave(two)
    after = embedded.status(used_home)
    assert (after.running, after.in_use) == (False, False)


def test_two_starting_a_new_database_at_once_share_it(home: Path) -> None:
    with process(CLIENT, str(home)) as one, process(CLIENT, str(home)) as two:
        assert said(one) == said(two)
        assert works(make_url(embedded_url(home)).render_as_string(hide_password=False))


def embedded_url(home: Path) -> str:
    with embedded.embedded(home) as url:
        return url


def test_a_killed_client_leaves_no_lock_and_the_server_to_the_others(used_home: Path) -> None:
    with process(CLIENT, str(used_home)) as victim, process(CLIENT, str(used_home)) as other:
        url = said(victim)
        said(other)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert works(url)
        leave(other)
    assert embedded.status(used_home) == ServerStatus(
        running=False,
        in_use=False,
        pid=None,
        data=str(data_of(used_home)),
        version=embedded.status(used_home).version,
    )


def test_what_a_killed_only_client_left_is_used_and_stopped_by_the_next(used_home: Path) -> None:
    with process(CLIENT, str(used_home)) as victim:
        said(victim)
        pid = embedded.status(used_home).pid
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    left = embedded.status(used_home)
    assert (left.running, left.in_use) == (True, False)
    with embedded.embedded(used_home) as url:
        assert works(url)
        assert embedded.status(used_home).pid == pid
    assert not embedded.status(used_home).running


def test_an_interrupt_at_the_terminal_does_not_reach_the_server(used_home: Path) -> None:
    with (
        process(CLIENT, str(used_home), start_new_session=True) as group,
        process(CLIENT, str(used_home)) as other,
    ):
        said(group)
        url = said(other)
        os.killpg(group.pid, signal.SIGINT)
        group.wait()
        assert works(url)


def test_stop_spares_a_server_in_use_unless_forced(used_home: Path) -> None:
    embedded.stop(used_home)
    assert embedded.stop(used_home) is False
    with embedded.embedded(used_home) as url:
        with pytest.raises(ConflictError, match="in use"):
            embedded.stop(used_home)
        assert works(url)
        assert embedded.stop(used_home, force=True) is True
        assert not embedded.status(used_home).running
    assert embedded.stop(used_home.with_name("never made")) is False


def test_a_client_comes_back_to_the_same_url(used_home: Path) -> None:
    assert embedded_url(used_home) == embedded_url(used_home)


def test_the_server_of_a_url_is_recognised(used_home: Path, tmp_path: Path) -> None:
    url = embedded_url(used_home)
    assert embedded.serves(used_home, url)
    assert not embedded.serves(used_home, "postgresql://u@elsewhere/kdsearch")
    assert not embedded.serves(tmp_path / "other", url)


# ---------------------------------------------------------------- crashes


def kill_server(home: Path) -> None:
    """SIGKILL the postmaster, and wait until its processes have noticed."""
    data = data_of(home)
    with postmaster.find(data) as found:
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)
        assert found.gone(within=60)


def test_a_killed_server_is_started_again_with_its_data(used_home: Path) -> None:
    with embedded.embedded(used_home) as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer"))
        engine.dispose()
        kill_server(used_home)
        with embedded.embedded(used_home) as again:
            engine = create_engine(again)
            with engine.connect() as connection:
                assert connection.execute(text("SELECT answer FROM kept")).scalar() == 42
            engine.dispose()


@pytest.mark.parametrize("disguise", ["python", "postgres"])
def test_a_reused_pid_is_neither_signalled_nor_in_the_way(
    used_home: Path, disguise: str, tmp_path: Path
) -> None:
    with embedded.embedded(used_home):
        data = data_of(used_home)
        lines = (data / "postmaster.pid").read_text().splitlines()
        kill_server(used_home)
        account = pgbinaries.account_for(os.geteuid())
        identity = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
        with innocent(disguise, tmp_path, identity) as process_with_that_pid:
            stale = "\n".join([str(process_with_that_pid.pid), *lines[1:]]) + "\n"
            (data / "postmaster.pid").write_text(stale)
            assert embedded.status(used_home).running is False
            with embedded.embedded(used_home) as url:
                assert works(url)
                assert embedded.status(used_home).pid != process_with_that_pid.pid
            assert process_with_that_pid.poll() is None
            assert embedded.stop(used_home, force=True) is True
            (data / "postmaster.pid").write_text(stale)
            assert embedded.stop(used_home, force=True) is False
            assert process_with_that_pid.poll() is None


@contextmanager
def innocent(disguise: str, folder: Path, identity: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    """A process of the server's own account that has nothing to do with it, whatever it is called."""
    sleeper = ["/bin/sh", "-c", "echo ready; read line"]
    if disguise == "postgres":
        sleeper[0] = "postgres"
    started = subprocess.Popen(
        sleeper,
        executable="/bin/sh",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        **identity,
    )  # type: ignore[call-overload]
    try:
        assert said(started) == "ready"
        yield started
        assert started.poll() is None
    finally:
        started.kill()
        started.communicate()


def test_nobody_is_signalled_for_garbage_in_the_pid_file(used_home: Path) -> None:
    data = data_of(used_home)
    for garbage in ("", "\n", "not a number\n", "-1\n", "0\n", "1\n", "99999999999999\n", f"{os.getpid()}\n"):
        (data / "postmaster.pid").write_text(garbage)
        assert embedded.stop(used_home, force=True) is False
    assert works_after_start(used_home)


def works_after_start(home: Path) -> bool:
    with embedded.embedded(home) as url:
        return works(url)


def test_a_server_somewhere_else_on_the_same_folder_is_not_touched(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another container's processes cannot be seen, but hold the lock that the server inherited."""
    monkeypatch.setattr(embedded, "ELSEWHERE_S", 0.3)
    lock = os.open(used_home / "postgres" / "server.lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another machine or in another container"):
            works_after_start(used_home)
    finally:
        os.close(lock)
    assert works_after_start(used_home)


def test_a_half_made_database_is_made_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = postmaster.run_as

    def interrupted(account: object, command: list[str], **options: object) -> object:
        done = real(account, command, **options)  # type: ignore[arg-type]
        if command[0].endswith("initdb"):
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(postmaster, "run_as", interrupted)
    with pytest.raises(KeyboardInterrupt):
        works_after_start(home)
    monkeypatch.setattr(postmaster, "run_as", real)
    assert works_after_start(home)


# ---------------------------------------------------------------- doors and walls


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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
