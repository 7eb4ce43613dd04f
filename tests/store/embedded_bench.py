"""What the tests of the embedded Postgres are made of: clients in processes of their own, and bystanders."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from kdsearch.store import embedded

CLIENT = """
import sys
from pathlib import Path
from kdsearch.store.embedded import embedded
with embedded(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def discard(home: Path) -> None:
    """End a test's server, and remove what root keeps outside the state folder."""
    record = home / "postgres" / "server.json"
    embedded.stop(home, force=True)
    if record.exists():
        place = json.loads(record.read_text())
        if place["account"] is not None:
            shutil.rmtree(Path(place["data"]).parent, ignore_errors=True)


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


def data_of(home: Path) -> Path:
    found = embedded.status(home).data
    assert found is not None
    return Path(found)


def embedded_url(home: Path) -> str:
    with embedded.embedded(home) as url:
        return url


def works_after_start(home: Path) -> bool:
    with embedded.embedded(home) as url:
        return works(url)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
