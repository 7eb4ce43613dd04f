"""Commands about the database and this machine; and what is said when it cannot be reached."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

Run = Callable[..., Any]
NOBODY = "postgresql://someone:s3cret@127.0.0.1:1/nowhere"
READING = (
    ("pareto", "opinions"),
    ("best", "opinions"),
    ("trial", "list", "opinions"),
    ("study", "list"),
    ("study", "show", "opinions"),
    ("db", "status"),
    ("db", "upgrade"),
    ("worker", "start", "--study", "opinions"),
    ("dashboard", "opinions"),
)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_no_server_is_exit_5_without_password_or_traceback(kdsearch: Run, command: tuple[str, ...]) -> None:
    answer = kdsearch(*command, storage=NOBODY)
    assert answer.code == 5
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert "hint: " in answer.err
    assert "Traceback" not in answer.err
    assert "s3cret" not in answer.err


def test_debug_shows_the_traceback_but_not_the_password(kdsearch: Run) -> None:
    answer = kdsearch("study", "list", "--debug", storage=NOBODY)
    assert answer.code == 5
    assert "Traceback" in answer.err
    assert "s3cret" not in answer.err


def test_wrong_password_is_exit_5_and_is_not_shown(kdsearch: Run, database: str) -> None:
    url = make_url(database)
    query = {key: value for key, value in url.query.items() if key != "password"}
    wrong = url.set(password="s3cret", query=query).render_as_string(hide_password=False)
    answer = kdsearch("study", "list", "--json", storage=wrong)
    error = answer.error(5)
    assert error["code"] == "storage"
    assert "s3cret" not in answer.out + answer.err


@pytest.mark.parametrize(
    "url", ["not a url", "mysql://me:s3cret@host/db", "postgresql://me:s3cret@host:port/db"]
)
def test_a_url_that_is_none(kdsearch: Run, url: str) -> None:
    answer = kdsearch("study", "list", "--storage", url)
    assert answer.code == 5
    assert "Traceback" not in answer.err
    assert "s3cret" not in answer.err


def test_reading_makes_no_database_where_there_is_none(kdsearch: Run, tmp_path: Path) -> None:
    listed = kdsearch("study", "list")
    assert (listed.code, listed.out) == (0, "")
    assert "kdsearch run" in listed.err
    assert kdsearch("pareto", "opinions", "--json").error(3)["hint"].startswith("kdsearch run")
    assert kdsearch("db", "status", "--json").data("db")["schema"] is None
    assert kdsearch("db", "stop", "--json").data("db_stop") == {"stopped": False}
    assert not (tmp_path / "state").exists()


def test_db_status_and_upgrade(kdsearch: Run, empty_database: str) -> None:
    before = kdsearch("db", "status", "--json", storage=empty_database)
    assert before.error(5)["hint"] == "kdsearch db upgrade"
    assert kdsearch("study", "list", "--json", storage=empty_database).error(5)["hint"]
    upgraded = kdsearch("db", "upgrade", "--json", storage=empty_database).data("db")
    assert upgraded["fits"] is True
    again = kdsearch("db", "upgrade", "--json", storage=empty_database).data("db")
    assert again == upgraded
    status = kdsearch("db", "status", "--json", storage=empty_database).data("db")
    assert status["schema"]["current"] == status["schema"]["head"]
    password = make_url(empty_database).password or make_url(empty_database).query.get("password")
    shown = kdsearch("db", "status", storage=empty_database)
    assert "up to date" in shown.out
    assert password is None or str(password) not in shown.out + json.dumps(status)


def test_only_the_embedded_server_is_stopped(kdsearch: Run, database: str) -> None:
    answer = kdsearch("db", "stop", storage=database)
    assert answer.code == 2
    assert "embedded" in answer.err


def test_doctor_is_content_with_a_good_database(kdsearch: Run, database: str) -> None:
    data = kdsearch("doctor", "--json", storage=database).data("doctor")
    assert data["ok"] is True
    found = {check["name"]: check["status"] for check in data["checks"]}
    assert {"python", "torch", "devices", "disk", "database", "schema", "artifacts"} <= set(found)
    assert set(found.values()) <= {"ok", "warning"}


def test_doctor_ends_with_its_first_failure(kdsearch: Run, empty_database: str) -> None:
    away = kdsearch("doctor", storage=NOBODY)
    assert away.code == 5
    assert "failed" in away.out
    assert "s3cret" not in away.out + away.err
    old = kdsearch("doctor", "-q", storage=empty_database)
    assert (old.code, old.out) == (5, "schema\n")


def test_doctor_finds_artifacts_that_cannot_be_written(kdsearch: Run, database: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    broken = kdsearch("doctor", "-q", "--artifacts", f"file://{tmp_path}/file/below", storage=database)
    assert (broken.code, broken.out) == (5, "artifacts\n")


def test_doctor_tells_artifacts_nobody_can_read_from_a_database_that_is_away(
    kdsearch: Run, database: str
) -> None:
    broken = kdsearch("doctor", "-q", "--artifacts", "nosuch://bucket/folder", storage=database)
    assert (broken.code, broken.out) == (5, "artifacts\n")


def test_the_dashboard_serves_until_it_is_told_to_stop(filled: str, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", "kdsearch", "dashboard", "opinions", "--port", str(port), "--json"]
    env = {**environment, "KDSEARCH_STORAGE": filled}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as child:
        assert child.stdout is not None
        try:
            answer = json.loads(child.stdout.readline())
            assert answer["schema"] == "kdsearch.dashboard/v1"
            assert answer["data"]["url"] == f"http://127.0.0.1:{port}/?study=opinions"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=60) as health:
                assert health.status == 200
            assert not any(filled in line for line in command_lines())
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=120) == 143
    with pytest.raises(OSError, match=r".+"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2)


def command_lines() -> list[str]:
    """Of every process that may be seen."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_the_dashboard_is_not_shown_to_others_by_accident(kdsearch: Run, database: str) -> None:
    answer = kdsearch("dashboard", "--host", "0.0.0.0", storage=database)
    assert answer.code == 2
    assert "--allow-remote" in answer.err


def test_a_port_that_is_taken(kdsearch: Run, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = kdsearch("dashboard", "--port", str(port), storage=database)
    assert answer.code == 2
    assert f"--port {port + 1}" in answer.err


def test_a_command_that_is_terminated_leaves_the_embedded_server_stopped(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """SIGTERM ends the process through its context managers."""
    script = (
        "import signal, sys, os, time\n"
        "from kdsearch.cli import errors\n"
        "def command():\n"
        "    try:\n        print('up', flush=True); time.sleep(300)\n"
        "    finally:\n        print('left', flush=True)\n"
        "sys.exit(errors.guarded(command))\n"
    )
    arguments = [sys.executable, "-c", script]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        os.kill(child.pid, signal.SIGTERM)
        assert child.stdout.readline() == "left\n"
        assert child.wait(timeout=120) == 143


def test_ctrl_c_is_exit_130_without_a_traceback(environment: dict[str, str], tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from kdsearch.cli import errors\n"
        "def command():\n    print('up', flush=True)\n    time.sleep(300)\n"
        "sys.exit(errors.guarded(command))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        os.kill(child.pid, signal.SIGINT)
        _, said = child.communicate(timeout=120)
    assert child.returncode == 130
    assert said == "interrupted\n"
