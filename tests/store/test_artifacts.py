"""Artifacts: whole or not there, checked when read, the same over a disk and over a remote store."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from kdsearch.core.blobs import get_tree, put_tree
from kdsearch.core.canonical import sha256_hex
from kdsearch.core.errors import ArtifactError
from kdsearch.store import artifacts
from kdsearch.store.artifacts import ArtifactStore
from kdsearch.store.connect import Store

Make = Callable[..., ArtifactStore]


@pytest.fixture(params=["file", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes stores over the same place; `machine` has a cache of its own."""
    place = f"memory://{uuid.uuid4().hex}" if request.param == "memory" else (tmp_path / "a b%20").as_uri()

    def store(machine: str = "one") -> ArtifactStore:
        return ArtifactStore(place, tmp_path / "cache" / machine)

    return store


def stored_file(store: ArtifactStore, sha256: str, change: Callable[[bytes], bytes]) -> None:
    """Change the stored bytes behind the store's back."""
    if store.url.startswith("memory://"):
        path = f"{store.url}/{sha256[:2]}/{sha256}"
        fs, root = fsspec.core.url_to_fs(path)
        data = change(fs.cat_file(root))
        fs.pipe_file(root, data)
        return
    path = store.open(sha256)
    data = change(path.read_bytes())
    path.chmod(0o644)
    path.write_bytes(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(data=st.binary(max_size=5000))
def test_what_is_put_is_opened_elsewhere(make: Make, data: bytes) -> None:
    sha256 = make("one").put(data)
    assert sha256 == sha256_hex(data)
    assert make("two").exists(sha256)
    assert make("two").open(sha256).read_bytes() == data
    assert make("one").put(data) == sha256


def test_files_larger_than_a_chunk(make: Make, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(3 * artifacts._CHUNK + 17))
    sha256 = make("one").put(source)
    assert make("two").open(sha256).read_bytes() == source.read_bytes()


def test_an_opened_artifact_is_read_only(make: Make) -> None:
    path = make().open(make().put(b"x"))
    assert path.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b + b"!", lambda b: bytes([b[0] ^ 1]) + b[1:]]
)
def test_damage_is_found(make: Make, damage: Callable[[bytes], bytes]) -> None:
    store = make("one")
    sha256 = store.put(b"precious bytes")
    stored_file(store, sha256, damage)
    with pytest.raises(ArtifactError, match="damaged") as caught:
        make("two").open(sha256)
    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_damage_after_a_first_look_is_found_by_the_same_process(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    sha256 = store.put(b"precious bytes")
    store.open(sha256)
    stored_file(store, sha256, lambda b: bytes(reversed(b)))
    with pytest.raises(ArtifactError, match="damaged"):
        store.open(sha256)


def test_a_truncated_artifact_is_mended_by_storing_it_again(make: Make) -> None:
    sha256 = make("one").put(b"precious bytes")
    stored_file(make("one"), sha256, lambda b: b[:3])
    make("two").put(b"precious bytes")
    assert make("three").open(sha256).read_bytes() == b"precious bytes"


def test_a_local_artifact_damaged_in_place_is_mended_by_storing_it_again(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    sha256 = store.put(b"precious bytes")
    stored_file(store, sha256, lambda b: bytes(reversed(b)))
    store.put(b"precious bytes")
    assert store.open(sha256).read_bytes() == b"precious bytes"


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    place = f"memory://{uuid.uuid4().hex}"
    sha256 = ArtifactStore(place, tmp_path / "one").put(b"precious bytes")
    cached = ArtifactStore(place, tmp_path / "two").open(sha256)
    cached.chmod(0o644)
    cached.write_bytes(b"rubbish")
    assert ArtifactStore(place, tmp_path / "two").open(sha256).read_bytes() == b"precious bytes"


def test_a_missing_artifact_says_where_it_was_looked_for(make: Make) -> None:
    store = make()
    assert not store.exists("0" * 64)
    with pytest.raises(ArtifactError, match="is not in"):
        store.open("0" * 64)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "/etc/passwd", "0" * 64 + "\n"])
def test_only_hashes_are_names(make: Make, name: str) -> None:
    for look in (make().open, make().exists):
        with pytest.raises(ArtifactError, match="not the name"):
            look(name)


def test_a_write_that_breaks_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError("the disk is full")
            return super().read(4)

    monkeypatch.setattr(artifacts.io, "BytesIO", Breaking)
    with pytest.raises(ArtifactError, match="the disk is full"):
        store.put(b"precious bytes")
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert store.open(store.put(b"precious bytes")).read_bytes() == b"precious bytes"


def test_an_unreachable_store_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="Cannot write"):
        ArtifactStore(str(tmp_path / "file"), tmp_path / "cache").put(b"x")


def test_an_unknown_protocol_is_an_artifact_error_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        ArtifactStore("nosuch://key:s3cr3t@bucket/x", tmp_path)
    assert "s3cr3t" not in str(caught.value)


def test_many_put_the_same_at_once(make: Make) -> None:
    data = os.urandom(200_000)
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda i: make(str(i % 3)).put(data), range(24)))
    assert names == {sha256_hex(data)}
    assert make("other").open(names.pop()).read_bytes() == data


def test_what_is_published_is_recorded(store: Store) -> None:
    sha256 = store.blobs.put(b"12345")
    store.blobs.put(b"12345")
    with store.engine.connect() as connection:
        rows = connection.execute(text("SELECT sha256, bytes FROM kdsearch.artifact")).all()
    assert [tuple(row) for row in rows] == [(sha256, 5)]


def test_trees_come_back_file_by_file(make: Make, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep").mkdir(parents=True)
    (source / "a.json").write_text("{}")
    (source / "deep" / "b.bin").write_bytes(b"\0\1")
    tree = put_tree(make("one"), source)
    target = get_tree(make("two"), tree, tmp_path / "target")
    assert {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()} == {
        "a.json": b"{}",
        "deep/b.bin": b"\0\1",
    }
