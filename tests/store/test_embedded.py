"""The embedded Postgres: shared, stopped by the last, never confused with another process."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from embedded_bench import (
    CLIENT,
    data_of,
    embedded_url,
    leave,
    process,
    said,
    works,
    works_after_start,
)
from sqlalchemy import create_engine, make_url, text

from kdsearch.core.errors import ConflictError, StorageError
from kdsearch.store import embedded, pgbinaries, postmaster
from kdsearch.store.embedded import ServerStatus

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
