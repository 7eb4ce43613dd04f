"""The pages on adding a student and a scheme, followed literally on a copy, with the contracts run on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"```(?:python|markdown)\n(?:# |<!-- )([\w/.-]+)(?:: an? [^\n]*)?(?: -->)?\n(.*?)```", re.DOTALL
)


def into_dict(source: str, block: str, name: str) -> str:
    """The imports after the others, the entry at the end of the dict of that name."""
    imports = [line for line in block.splitlines() if line.startswith("from ")]
    entry = "\n".join(line for line in block.splitlines() if line and line not in imports)
    opening = source.index(f"{name}: ")
    end = source.index("\n}", opening)
    grown = f"{source[:end]}\n{entry}{source[end:]}"
    last = [m.end() for m in re.finditer(r"^from .*$", grown, flags=re.MULTILINE)][-1]
    return "\n".join([grown[:last], *imports]) + grown[last:] if imports else grown


def into_table(source: str, row: str, beside: str) -> str:
    (line,) = re.findall(rf"^\| `{beside}` \|.*$", source, flags=re.MULTILINE)
    return source.replace(line, f"{line}\n{row.strip()}")


def followed(page: str, root: Path, *, dict_name: str, beside: str) -> None:
    """Everything that the page says, done."""
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    assert len(blocks) >= 3, "the page lost a block, or one does not say which file it is for"
    for file, block in blocks:
        path = root / file
        if not path.exists():
            path.write_text(block)
        elif path.suffix == ".md":
            path.write_text(into_table(path.read_text(), block, beside))
        else:
            name = "CASES" if file.startswith("tests/") else dict_name
            path.write_text(into_dict(path.read_text(), block, name))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    parts = ("kdsearch", "dashboard", "docs", "studies", "tests", "benchmarks")
    for part in parts:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def assert_passes(root: Path, *arguments: str, at_least: int) -> None:
    done = run(root, "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *arguments)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= at_least


DOCUMENTED = "tests/test_docs.py::test_every_variant_and_parameter_is_documented"


def test_a_student_is_added_as_the_page_says(copy: Path) -> None:
    followed("adding-a-student.md", copy, dict_name="STUDENTS", beside="bag")
    assert_passes(copy, "tests/students/test_contract.py", "-k", "swem", at_least=20)
    assert_passes(copy, DOCUMENTED, at_least=1)


def test_a_scheme_is_added_as_the_page_says(copy: Path) -> None:
    followed("adding-a-scheme.md", copy, dict_name="SCHEMES", beside="offline")
    chosen = ("tests/distill/test_routing.py", "tests/distill/test_schemes_spaces.py")
    assert_passes(copy, *chosen, "-k", "reverse or formula_here", at_least=10)
    assert_passes(copy, DOCUMENTED, at_least=1)


def test_the_pages_code_is_clean(copy: Path) -> None:
    followed("adding-a-student.md", copy, dict_name="STUDENTS", beside="bag")
    followed("adding-a-scheme.md", copy, dict_name="SCHEMES", beside="offline")
    files = ("kdsearch/students/swem.py", "kdsearch/distill/schemes/reverse.py")
    for command in (("ruff", "check", *files), ("ruff", "format", "--check", *files)):
        done = run(copy, *command)
        assert done.returncode == 0, done.stdout + done.stderr
