"""A Postgres server process: started, recognised and stopped, never confused with another process.

A number from ``postmaster.pid`` says nothing alone: pids are reused. It counts only together with the
process's command line and working directory, read while a pidfd holds the process fast, and every
signal goes through that pidfd.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

_READY = "ready"
_IN_BACKGROUND = '"$@" >&2 &'
"""The shell ends at once and leaves the server to init; SIGINT reaches it all the same (it sets its own)."""


@dataclass(frozen=True)
class Account:
    """Whom the server runs as; None means whoever asks."""

    uid: int
    gid: int
    name: str

    def owns(self, path: Path) -> None:
        """Give a file or folder that we have just made to this account."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)


def run_as(
    account: Account | None,
    command: Sequence[str],
    *,
    errors: int = subprocess.STDOUT,
    keep: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in its own session and a clean environment; what it printed is in `stdout`."""
    identity: dict[str, Any] = {}
    if account is not None:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": [account.gid]}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [*command],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        errors="replace",
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,
        umask=0o077,
        pass_fds=keep,
        **identity,
    )
    return done


@dataclass(frozen=True)
class Postmaster:
    """A living postmaster of one data folder, held by a pidfd."""

    pid: int
    pidfd: int

    def gone(self, *, within: float) -> bool:
        """Whether the process has ended, waiting that many seconds at most."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(int(within * 1000)))

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, everything committed is on disk. Then the hard way."""
        for number, patience in ((signal.SIGINT, 60.0), (signal.SIGQUIT, 15.0), (signal.SIGKILL, 15.0)):
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return
            if self.gone(within=patience):
                return


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _working_directory(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def serves(pid: int, data: Path) -> bool:
    """Whether this process is a postmaster, and that of this data folder."""
    command = _command_line(pid)
    if not command or Path(command[0]).name != "postgres":
        return False
    folder = _working_directory(pid)
    if folder is not None:
        return folder == data.resolve()
    return ("-D", str(data)) in pairwise(command)  # root without CAP_SYS_PTRACE may not read the folder


def _recorded(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return []


def is_ready(data: Path) -> bool:
    """Whether the server says in its pid file that it takes connections."""
    lines = _recorded(data)
    return len(lines) >= 8 and lines[7].strip() == _READY


@contextmanager
def find(data: Path) -> Iterator[Postmaster | None]:
    """The living postmaster of a data folder, or None; the pidfd is closed on leaving."""
    lines = _recorded(data)
    pid = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
    try:
        pidfd = os.pidfd_open(pid) if pid > 1 else -1
    except (OSError, OverflowError):
        pidfd = -1
    try:
        held = pidfd >= 0 and serves(pid, data)
        yield Postmaster(pid, pidfd) if held else None
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def launch(
    binary: Path, *, data: Path, sockets: Path, account: Account | None, log: Path, alive: int
) -> None:
    """Start a server that listens on a Unix socket only, and is nobody's child.

    ``alive`` is the descriptor of a locked file: the server and all its processes inherit it, so that
    the lock is free exactly when not one of them is left, whatever killed them.
    """
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "max_connections": "200",
        "shared_buffers": "64MB",
        "max_parallel_workers_per_gather": "0",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = ["/bin/sh", "-c", _IN_BACKGROUND, "sh", str(binary), "-D", str(data), *options]
    with log.open("ab") as sink:
        run_as(account, command, errors=sink.fileno(), keep=(alive,))
