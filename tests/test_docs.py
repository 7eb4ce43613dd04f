"""The documentation keeps up: commands, exit codes, keys and parameters are in it, and links hold."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kdsearch.core import errors
from kdsearch.core.spec import StudySpec

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands() -> Iterator[tuple[str, Any]]:
    """("trial list", its Click command) for each command that does something."""
    from kdsearch.cli import main

    for top in main.COMMANDS:
        command = main.load(top)
        inner = getattr(command, "commands", None)
        yield from ((f"{top} {sub}", found) for sub, found in inner.items()) if inner else [(top, command)]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [
        t for t in LINK.findall(page.read_text()) if not t.startswith(("http://", "https://", "mailto:"))
    ]
    for target in targets:
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name(page)} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            files = [t.partition("#")[0] for t in LINK.findall(page.read_text()) if "://" not in t]
            todo += [(page.parent / f).resolve() for f in files if f]
    assert [name(p) for p in PAGES if p not in reached] == []


def test_the_reference_is_what_the_commands_say() -> None:
    from kdsearch.cli.reference import page

    stale = "run: python -m kdsearch.cli.reference > docs/cli.md"
    assert (DOCS / "cli.md").read_text() == page(), stale


def test_every_command_and_option_is_documented_and_no_other() -> None:
    head, *sections = re.split(r"^### kdsearch ", (DOCS / "cli.md").read_text(), flags=re.MULTILINE)
    known = dict(commands())
    assert [section.partition("\n")[0] for section in sections] == list(known)
    for section, command in zip(sections, known.values(), strict=True):
        given = {o for p in command.params if not getattr(p, "hidden", False) for o in p.opts if o[0] == "-"}
        documented = set(re.findall(r"`(--?[a-z-]+)`", head + section))
        assert given - documented - {"--help", "-h"} == set(), section.partition("\n")[0]


def test_options_in_the_docs_exist() -> None:
    from kdsearch.cli import main

    known = {option for _, command in commands() for p in command.params for option in p.opts}
    known |= {"--help"} | {option for p in main.application().params for option in p.opts}
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        lines = [
            ln for ln in page.read_text().splitlines() if "kdsearch " in ln and "docker compose" not in ln
        ]
        used = {o for line in lines for o in re.findall(r"(?<=[\s`])--[a-z-]+", line)}
        assert used - known == set(), name(page)


BASH = re.compile(r"```bash\n(.*?)```", re.DOTALL)
CALLS = [
    (page, line.strip())
    for page in PAGES
    for block in BASH.findall(page.read_text())
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"\s*(\.venv/bin/)?kdsearch [a-z]", line)
]


@pytest.mark.parametrize(("page", "line"), CALLS, ids=[f"{name(page)}: {line}" for page, line in CALLS])
def test_commands_on_the_pages_are_lines_that_kdsearch_takes(
    page: Path, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(re.split(r"\s>>?\s|\s\|\s", line.partition("  #")[0].rstrip())[0])
    for word in words:
        if Path(word).suffix in (".yaml", ".csv", ".jsonl") and not Path(word).is_absolute():
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    found = [(full, c) for full, c in commands() if words[1 : 1 + len(full.split())] == full.split()]
    assert len(found) == 1, line
    full, command = found[0]
    arguments = ["7" if "$(" in word else word for word in words[1 + len(full.split()) :]]
    command.make_context(full, arguments)  # raises for what it does not take


def test_every_exit_code_is_documented() -> None:
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.KdsearchError)
    }
    wanted = codes | {0, errors.EXIT_INTERRUPTED, errors.EXIT_TERMINATED}
    page = (DOCS / "exit-codes.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)} == wanted


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a section and of the sections in it."""
    for key, field in model.model_fields.items():
        yield key
        parts = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys(part)


def test_every_key_of_the_study_file_is_documented() -> None:
    page = re.sub(r"```.*?```", "", (DOCS / "study-file.md").read_text(), flags=re.DOTALL)
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", page))))
    assert set(keys(StudySpec)) - words - {"params"} == set()


def test_every_variant_and_parameter_is_documented() -> None:
    from kdsearch.distill.schemes import SCHEMES
    from kdsearch.search.samplers import SAMPLERS
    from kdsearch.students import STUDENTS

    page = (DOCS / "study-file.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", page, flags=re.MULTILINE))
    for variant, found in {**STUDENTS, **SCHEMES}.items():
        without_values = re.sub(r"\(.*?\)", "", rows[variant])
        assert set(re.findall(r"`(\w+)`", without_values)) == set(found.SPACE), variant
    assert [s for s in SAMPLERS if f"`{s}`" not in page] == []


def test_the_glossary_is_in_one_word_a_thing() -> None:
    page = (DOCS / "glossary.md").read_text()
    words = re.findall(r"^\| \*\*([\w ]+)\*\*", page, flags=re.MULTILINE)
    assert len(words) == len(set(words))
    assert {"study", "trial", "teacher", "student", "scheme", "stage", "lease", "front", "artifact"} <= set(
        words
    )


def test_the_shortest_study_in_the_readme_is_valid(tmp_path: Path) -> None:
    from kdsearch.search.check import load

    (source,) = re.findall(r"```yaml\n(version.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "study.yaml").write_text(source)
    assert load(tmp_path / "study.yaml", {}).spec.name == "sms-spam"
