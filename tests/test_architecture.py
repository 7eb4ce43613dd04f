"""The shape of the code: sizes, floors, names, and what is loaded when."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "kdsearch").rglob("*.py"), *(ROOT / "dashboard").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_VARIANT_LINES = 100
VARIANT_FOLDERS = ("distill/schemes", "search/samplers", "search/pruners", "measure/runtimes")
FORBIDDEN_NAMES = {"util", "utils", "common", "helper", "helpers", "misc", "manager", "managers"}
HEAVY = ("torch", "transformers")
DOMAIN = ("optuna", "sqlalchemy")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def run(*argv: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def loaded_by(code: str, *forbidden: str, cwd: Path = ROOT, **environment: str) -> list[str]:
    """Which of these top-level packages are loaded after some code, whatever its exit."""
    program = (
        "import sys\n"
        f"try:\n    {code}\n"
        "except SystemExit:\n    pass\n"
        f"print('LOADED', *[n for n in {forbidden!r} if n in sys.modules])\n"
    )
    done = run(sys.executable, "-c", program, cwd=cwd, **environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert lines, done.stdout + done.stderr
    return lines[-1].split()[1:]


# ---------------------------------------------------------------- sizes and names


@pytest.mark.parametrize("path", SOURCES + TESTS + BENCHMARKS, ids=name)
def test_files_and_functions_stay_small(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE_LINES
    sizes = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions(path)}
    assert {n: s for n, s in sizes.items() if s > MAX_FUNCTION_LINES} == {}


def test_a_variant_is_a_file_under_a_hundred_lines() -> None:
    from kdsearch.students import STUDENTS

    students = [ROOT / "kdsearch/students" / f"{student}.py" for student in STUDENTS]
    others = [p for folder in VARIANT_FOLDERS for p in (ROOT / "kdsearch" / folder).glob("*.py")]
    sizes = {name(p): len(p.read_text().splitlines()) for p in students + others}
    assert len(sizes) > len(STUDENTS) + 2
    assert {n: s for n, s in sizes.items() if s >= MAX_VARIANT_LINES} == {}


@pytest.mark.parametrize("path", SOURCES + TESTS + BENCHMARKS, ids=name)
def test_a_file_says_what_it_is_and_where_it_imports_from(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name != "__init__.py" or tree.body:
        assert ast.get_docstring(tree), "the first line of a file says what it is"
    relative = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    assert relative == []


def test_no_room_without_a_subject() -> None:
    words = {part.removesuffix(".py") for p in SOURCES for part in p.relative_to(ROOT).parts}
    assert words & FORBIDDEN_NAMES == set()


def test_the_package_root_holds_the_version_and_nothing_else() -> None:
    tree = ast.parse((ROOT / "kdsearch/__init__.py").read_text())
    assert [type(n) for n in tree.body] == [ast.Expr, ast.Assign]


def test_a_test_folder_is_no_package() -> None:
    assert [name(p) for p in TESTS if p.name == "__init__.py"] == []
    stems = [p.stem for p in TESTS if p.stem != "conftest"]
    assert sorted(set(stems)) == sorted(stems), "test files have distinct names"


def test_the_floors_hold() -> None:
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


# ---------------------------------------------------------------- what is loaded when


def cli(*argv: str) -> str:
    return f"sys.argv = ['kdsearch', *{argv!r}]; from kdsearch.cli.main import main; main()"


@pytest.mark.parametrize("argv", [("--help",), ("--version",)])
def test_help_loads_next_to_nothing(argv: tuple[str, ...]) -> None:
    assert loaded_by(cli(*argv), *HEAVY, *DOMAIN, "numpy", "pydantic") == []


@pytest.mark.parametrize("argv", [("run", "--help"), ("worker", "start", "--help"), ("export", "--help")])
def test_help_of_a_command_loads_nothing_heavy(argv: tuple[str, ...]) -> None:
    assert loaded_by(cli(*argv), *HEAVY, *DOMAIN) == []


@pytest.mark.parametrize(
    "argv",
    [("study", "list"), ("study", "show", "x"), ("trial", "list", "x"), ("pareto", "x"), ("db", "status")],
)
def test_lists_load_no_torch(argv: tuple[str, ...], database: str) -> None:
    assert loaded_by(cli(*argv), *HEAVY, KDSEARCH_STORAGE=database) == []


def test_the_dashboard_loads_neither_torch_nor_optuna() -> None:
    modules = [
        name(p).removesuffix(".py").replace("/", ".") for p in SOURCES if "dashboard" in name(p).split("/")
    ]
    code = "import " + ", ".join(m.removesuffix(".__init__") for m in modules if m.startswith("dashboard"))
    assert loaded_by(code, *HEAVY, "optuna") == []


@pytest.mark.parametrize("room", ["core", "store"])
def test_the_lower_floors_load_no_torch(room: str) -> None:
    files = [p for p in (ROOT / "kdsearch" / room).rglob("*.py") if "migrations" not in p.parts]
    modules = [name(p).removesuffix(".py").replace("/", ".").removesuffix(".__init__") for p in files]
    assert loaded_by("import " + ", ".join(modules), *HEAVY) == []


@pytest.mark.parametrize("room", ["data", "students", "teachers", "distill", "measure"])
def test_training_loads_neither_optuna_nor_sql(room: str) -> None:
    files = sorted((ROOT / "kdsearch" / room).rglob("*.py"))
    modules = [name(p).removesuffix(".py").replace("/", ".").removesuffix(".__init__") for p in files]
    assert loaded_by("import " + ", ".join(modules), "optuna", "sqlalchemy", "psycopg2") == []


# ---------------------------------------------------------------- the shipped studies


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=name)
def test_every_shipped_study_is_valid(path: Path) -> None:
    from kdsearch.search.check import load

    study = load(path, {"KDSEARCH_DATA": "/data", "KDSEARCH_TEACHER": "/teacher"})
    assert study.spec.name


def test_studies_are_shipped() -> None:
    assert {p.name for p in (ROOT / "studies").glob("*.yaml")} >= {"quickstart.yaml", "sms_spam.yaml"}
