"""Every way we know of to get a study file wrong, with the message that its author reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.core.errors import StudyFileError
from kdsearch.core.studyfile import render
from kdsearch.search.check import load
from kdsearch.search.spaces import Spaces

BROKEN = Path(__file__).parent / "broken"
FILES = sorted(BROKEN.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_broken_file_gives_its_message(path: Path, spaces: Spaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    with pytest.raises(StudyFileError) as caught:
        load(Path(path.name), {"DATA": "/data"}, spaces=spaces)
    assert render(caught.value) + "\n" == path.with_suffix(".txt").read_text(encoding="utf-8")
    assert caught.value.exit_code == 2


def test_there_are_enough_of_them_and_each_has_its_message() -> None:
    assert len(FILES) >= 22
    assert {path.stem for path in BROKEN.glob("*.txt")} == {path.stem for path in FILES}
