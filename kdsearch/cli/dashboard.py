"""`kdsearch dashboard`: the Streamlit pages in a child process that reads the same database."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from kdsearch.cli import completing, output
from kdsearch.cli.options import Options, child_environment
from kdsearch.core.errors import KdsearchError, UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
START_S = 60.0
LOOK = {"primaryColor": "#0072B2", "paddingTop": "4rem"}
StudyArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]",
        help="Open at this study.",
        show_default=False,
        autocompletion=completing.study_names,
    ),
]


def dashboard(
    options: Options,
    study: StudyArgument = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve on.")] = 8501,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to serve on.")
    ] = "127.0.0.1",
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Serve on an address that others reach, also without a login."),
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser too.")] = False,
) -> None:
    """Open the studies in a browser.

    Shows the Pareto chart of a study and every trial behind it. Serves until Ctrl-C.

    Example: kdsearch dashboard sms-spam --open
    """
    _check(host, port, allow_remote=allow_remote)
    app = _app()
    base = f"http://{host}:{port}/"
    url = base + (f"?{urlencode({'study': study})}" if study is not None else "")
    with options.reading() as store:
        if study is not None:
            from kdsearch.store import reads

            reads.study(store.engine, study)
        with _serving(_command(app, host, port), child_environment(store), base) as child:
            output.show(options, "dashboard", {"url": url}, human=lambda: [url], ids=[url])
            if open_browser:
                webbrowser.open(url)
            child.wait()
    raise KdsearchError(
        f"the dashboard ended by itself with exit code {child.returncode}", hint="its last words stand above"
    )


@contextmanager
def _serving(command: list[str], env: dict[str, str], base: str) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process, answering; it is ended on leaving."""
    child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        _wait_until_ready(child, base)
        yield child
    finally:
        _end(child)


def _check(host: str, port: int, *, allow_remote: bool) -> None:
    if importlib.util.find_spec("streamlit") is None or importlib.util.find_spec("plotly") is None:
        raise KdsearchError("the dashboard is not installed", hint='pip install "kdsearch[dashboard]"')
    if login_is_set_up() and importlib.util.find_spec("authlib") is None:
        raise KdsearchError(
            "the secrets of Streamlit ask for a login, and what does it is not installed",
            hint='pip install "streamlit[auth]"',
        )
    if host not in LOOPBACK and not allow_remote and not login_is_set_up():
        raise UsageError(
            f"{host} can be reached by others, and the dashboard asks nobody for a password",
            hint="leave --host out, set up a login (docs/dashboard.md), or add --allow-remote if it is meant",
        )
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot serve on {host}:{port}: {error.strerror or error}",
            hint=f"another port: --port {port + 1}",
        ) from None


def login_is_set_up() -> bool:
    """Whether Streamlit's secrets have a section ``[auth]``: then every page asks for a login."""
    for folder in (Path.cwd(), Path.home()):
        try:
            with (folder / ".streamlit" / "secrets.toml").open("rb") as file:
                if "auth" in tomllib.load(file):
                    return True
        except FileNotFoundError:
            continue
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"cannot read {folder}/.streamlit/secrets.toml: {error}") from None
    return False


def _app() -> Path:
    found = importlib.util.find_spec("dashboard")
    folder = Path(found.origin).parent if found is not None and found.origin else None
    if folder is None or not (folder / "app.py").exists():
        raise KdsearchError("the dashboard's pages are not there", hint="install kdsearch again")
    return folder / "app.py"


def _command(app: Path, host: str, port: int) -> list[str]:
    settings = {
        "server.address": host,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
    }
    settings |= {
        f"theme.{theme}.{name}": value for theme in ("light", "dark") for name, value in LOOK.items()
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-P", "-m", "streamlit", "run", str(app), *flags]


def _wait_until_ready(child: subprocess.Popen[bytes], base: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise KdsearchError(
                f"the dashboard ended at once with exit code {child.returncode}",
                hint="its last words stand above",
            )
        try:
            with urllib.request.urlopen(f"{base}_stcore/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise KdsearchError(f"the dashboard did not answer within {START_S:.0f} s", hint="see its words above")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
