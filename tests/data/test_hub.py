"""Hub addresses: their parts, class names instead of numbers, and errors one can act on; no network here."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdsearch.core.errors import DataError
from kdsearch.core.specdata import SourceSpec
from kdsearch.data.hub import HubAddress
from kdsearch.data.readers import read_rows
from kdsearch.data.rows import Rows

datasets = pytest.importorskip("datasets", reason="the extra `hf` is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as a local folder with two splits."""
    made = tmp_path / "reviews"
    made.mkdir()
    for split, count in {"train": 5, "test": 2}.items():
        rows = [{"text": f"{split} {i}", "label": "spam" if i % 2 else "ham"} for i in range(count)]
        (made / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def read(
    address: str, *, split: str = "train", limit: int | None = None, label: str | None = "label"
) -> Rows:
    source = SourceSpec(path=address, limit=limit)
    return read_rows(source, base=Path("/nowhere"), text="text", label=label, split=split)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("hf://imdb", ("imdb", None, None, None)),
        ("hf://stanfordnlp/imdb@e6281661", ("stanfordnlp/imdb", "e6281661", None, None)),
        ("hf://stanfordnlp/imdb#unsupervised", ("stanfordnlp/imdb", None, None, "unsupervised")),
        ("hf://nyu-mll/glue@main?config=sst2#validation", ("nyu-mll/glue", "main", "sst2", "validation")),
        ("hf://x@refs/convert/parquet#train[:10%]", ("x", "refs/convert/parquet", None, "train[:10%]")),
    ],
)
def test_an_address_has_up_to_four_parts(address: str, parts: tuple[str | None, ...]) -> None:
    assert HubAddress.parse(address) == HubAddress(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["hf://", "hf://@main", "hf://imdb@", "hf://imdb#", "hf://imdb?limit=3"])
def test_a_broken_address_shows_the_form(address: str) -> None:
    with pytest.raises(DataError) as caught:
        read(address)
    assert caught.value.hint.startswith("hf://name@revision")


def test_a_pool_reads_the_split_of_its_name_unless_the_address_says_which(folder: Path) -> None:
    assert read(f"hf://{folder}") == Rows(
        [f"train {i}" for i in range(5)], ["ham", "spam", "ham", "spam", "ham"]
    )
    assert read(f"hf://{folder}", split="test").texts == ["test 0", "test 1"]
    assert read(f"hf://{folder}#train", split="test", limit=3).texts == ["train 0", "train 1", "train 2"]
    assert read(f"hf://{folder}", label=None).labels == [None] * 5


def test_an_unknown_split_or_name_is_said_with_the_librarys_reason(folder: Path) -> None:
    with pytest.raises(DataError, match=r"split 'dev' cannot be loaded .*dev"):
        read(f"hf://{folder}#dev")
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        read(f"hf://{folder}-absent")
    assert "check name, split and network" in caught.value.hint


def test_a_missing_column_lists_those_there_are(folder: Path) -> None:
    with pytest.raises(DataError, match="no column 'lable'; the columns are 'text', 'label'"):
        read(f"hf://{folder}", label="lable")


def loader(monkeypatch: pytest.MonkeyPatch, data: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def load(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        if isinstance(data, Exception):
            raise data
        return data

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_class_numbers_become_their_names_and_minus_one_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    calls = loader(monkeypatch, data)
    assert read("hf://org/name@abc?config=c#s").labels == ["pos", "neg", None]
    assert calls == [(("org/name", "c"), {"revision": "abc", "split": "s"})]


def test_other_columns_are_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = datasets.Dataset.from_dict({"text": ["a"], "label": ["x"], "image": [b"not an image"]})
    loader(monkeypatch, data.cast_column("image", datasets.Value("binary")))
    assert read("hf://org/name") == Rows(["a"], ["x"])


def test_no_rows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    loader(monkeypatch, datasets.Dataset.from_dict({"text": [], "label": []}))
    with pytest.raises(DataError, match="hf://org/name holds no rows"):
        read("hf://org/name")


def test_whatever_the_network_raises_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class UnheardError(Exception):
        """As httpx raises, from no tree that kdsearch knows."""

    loader(monkeypatch, UnheardError("no route\nto the host"))
    with pytest.raises(DataError, match=r"\(UnheardError: no route\)$"):
        read("hf://org/name")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(DataError, match="needs the package") as caught:
        read("hf://org/name")
    assert 'pip install "kdsearch[hf]"' in caught.value.hint
