"""A folder stored as blobs comes back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.core.blobs import get_tree, put_tree
from kdsearch.core.canonical import canonical_json, sha256_hex

NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip("."))


class Folder:
    """Blobs as files named by their hash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fetched: list[str] = []

    def put(self, data: bytes | Path) -> str:
        content = data if isinstance(data, bytes) else data.read_bytes()
        digest = sha256_hex(content)
        (self.root / digest).write_bytes(content)
        return digest

    def open(self, sha256: str) -> Path:
        self.fetched.append(sha256)
        return self.root / sha256

    def exists(self, sha256: str) -> bool:
        return (self.root / sha256).exists()


@pytest.fixture
def blobs(tmp_path: Path) -> Folder:
    root = tmp_path / "blobs"
    root.mkdir()
    return Folder(root)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@given(
    st.dictionaries(st.tuples(st.sampled_from(["", "x", "x/y"]), NAMES), st.binary(max_size=8), max_size=5)
)
def test_a_tree_comes_back(
    tmp_path_factory: pytest.TempPathFactory, content: dict[tuple[str, str], bytes]
) -> None:
    base = tmp_path_factory.mktemp("tree")
    (base / "blobs").mkdir()
    blobs, source = Folder(base / "blobs"), base / "source"
    source.mkdir()
    for (folder, name), data in content.items():
        (source / folder).mkdir(parents=True, exist_ok=True)
        (source / folder / f"f{name}").write_bytes(data)
    digest = put_tree(blobs, source)
    assert put_tree(blobs, source) == digest
    (base / "back").mkdir()
    assert files(get_tree(blobs, digest, base / "back")) == files(source)


def test_a_tree_half_laid_out_is_completed(blobs: Folder, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_text(name)
    digest = put_tree(blobs, source)
    target = get_tree(blobs, digest, tmp_path / "target")
    (target / "b").unlink()
    (target / "c.part").write_text("half")
    blobs.fetched.clear()
    get_tree(blobs, digest, target)
    assert (target / "b").read_text() == "b"
    assert blobs.fetched == [digest, sha256_hex("b")]


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_tree_writes_nothing_outside_its_folder(blobs: Folder, tmp_path: Path, name: str) -> None:
    listing = canonical_json({"tree": {name: blobs.put(b"x")}}).encode()
    with pytest.raises(ValueError, match="outside its folder"):
        get_tree(blobs, blobs.put(listing), tmp_path / "target")
    assert not list(tmp_path.rglob("outside"))
