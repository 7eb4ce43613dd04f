"""What is shipped works away from the repository: the wheel, the pinned versions."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

ROOT = Path(__file__).resolve().parents[1]
STUDY = """\
version: 1
name: from-a-wheel
data: {train: "synthetic://spam_opinions?rows=200&seed=1", validation: "synthetic://spam_opinions?rows=100&seed=2"}
teacher: {build: {layers: 1, hidden: 32}, max_length: 32, finetune: {epochs: 1}}
constraints: {latency_ms: {max: 5}}
"""
DATA = {".csv", ".gz", ".json", ".jsonl", ".npy", ".npz", ".parquet"}


def run(*argv: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(a) for a in argv],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the working tree, with the build requirements that are installed already."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the dependencies are those installed here.

    They come by a .pth line: the folder is searched, but the .pth files in it, such as an editable
    install of the repository, are not read.
    """
    home = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=home)
    (own,) = (home / "lib").glob("python*/site-packages")
    shared = sorted(
        {str(Path(importlib.metadata.distribution(n).locate_file(""))) for n in ("torch", "optuna")}
    )
    (own / "dependencies.pth").write_text("\n".join(shared))
    return home


def test_the_wheel_holds_what_is_needed_at_run_time(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {
        p.relative_to(ROOT).as_posix()
        for top in ("kdsearch", "dashboard")
        for p in (ROOT / top).rglob("*.py")
    }
    assert code - names == set()
    assert {
        "kdsearch/store/queries.sql",
        "kdsearch/store/roles.sql",
        "dashboard/.streamlit/config.toml",
    } <= names
    assert any(n.startswith("kdsearch/store/migrations/versions/") for n in names)
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert {n.split("/")[0].split("-")[0] for n in names} == {"kdsearch", "dashboard"}


def test_the_wheel_runs_away_from_the_repository(venv: Path, tmp_path: Path) -> None:
    where = "import dashboard.app, kdsearch; print(kdsearch.__file__, dashboard.app.__file__)"
    done = run(venv / "bin/python", "-c", where, cwd=tmp_path)
    assert [Path(p).is_relative_to(venv) for p in done.stdout.split()] == [True, True]


def test_a_study_file_is_validated_from_the_wheel(venv: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    done = run(venv / "bin/kdsearch", "study", "validate", "study.yaml", cwd=tmp_path)
    assert "from-a-wheel" in done.stdout + done.stderr


def test_the_schema_is_made_from_the_wheel(venv: Path, tmp_path: Path, empty_database: str) -> None:
    run(venv / "bin/kdsearch", "db", "upgrade", cwd=tmp_path, KDSEARCH_STORAGE=empty_database)
    engine = create_engine(make_url(empty_database).set(drivername="postgresql+psycopg2"))
    with engine.connect() as connection:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'kdsearch'"
        tables = set(connection.execute(text(query)).scalars())
    engine.dispose()
    assert {"study", "trial", "epoch"} <= tables


def test_the_source_archive_holds_what_its_tests_need(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    tops = ("kdsearch", "dashboard", "tests", "benchmarks")
    code = {p.relative_to(ROOT).as_posix() for top in tops for p in (ROOT / top).rglob("*.py")}
    docs = {p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")}
    deployed = {"Dockerfile", "docker-compose.yml", ".dockerignore", ".env.example", "constraints.txt"}
    assert (code | docs | deployed) - held == set()
    assert [name for name in held if name.startswith("benchmarks/") and Path(name).suffix in DATA] == []


# ---------------------------------------------------------------- versions


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(line) for group in (project["dependencies"], *extras) for line in group]
    versions = pinned()
    assert [str(r) for r in wanted if canonicalize_name(r.name) not in versions] == []
    assert [str(r) for r in wanted if versions[canonicalize_name(r.name)] not in r.specifier] == []


def test_the_pinned_versions_are_those_tested_here() -> None:
    installed = {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions()}
    public = {n: v.split("+")[0] for n, v in installed.items()}
    off = {n: (v, public[n]) for n, v in pinned().items() if n in public and public[n] != v}
    assert off == {}
    assert pinned()["torch"] == "2.13.0"
