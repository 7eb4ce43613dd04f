"""Files of texts in and predictions out: nothing lost, nothing half-written, mistakes located."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from kdsearch.core.errors import DataError, UsageError
from kdsearch.export.tables import as_csv, csv_parts, lines, read_texts, writing

AWKWARD = ["plain", 'with, comma and "quotes"', "two\nlines", "tab\there", "", "垃圾 短信", "{[=;"]
RECORDS = [
    {"id": str(i), "text": text, "prediction": "spam", "probability": 0.5} for i, text in enumerate(AWKWARD)
]


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl"])
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with writing(path) as add:
        for record in RECORDS:
            add(record)
    rows = list(read_texts(path, "text"))
    assert [row.text for row in rows] == AWKWARD
    assert [str(row.fields["id"]) for row in rows] == [record["id"] for record in RECORDS]
    assert {float(row.fields["probability"]) for row in rows} == {0.5}


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    plain = "\ufefftext,n\nhello,1\n"
    (tmp_path / "a.csv").write_text(plain, encoding="utf-8")
    with gzip.open(tmp_path / "a.csv.gz", "wt", encoding="utf-8") as file:
        file.write(plain)
    both = [list(read_texts(tmp_path / name, "text")) for name in ("a.csv", "a.csv.gz")]
    assert both[0] == both[1] and both[0][0].text == "hello"


def test_every_line_of_a_txt_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\nthree")
    assert [row.text for row in read_texts(tmp_path / "a.txt", "text")] == ["one", "", "three"]
    assert [row.text for row in lines(["one\r\n", "two"])] == ["one", "two"]


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("message,n\nhello,1\n")
    with pytest.raises(DataError, match="no column 'text'") as caught:
        list(read_texts(tmp_path / "a.csv", "text"))
    assert "message, n" in caught.value.hint and "--text" in caught.value.hint


def test_a_broken_line_is_located(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError) as caught:
        list(read_texts(path, "text"))
    assert str(caught.value.where) == f"{path}:2"
    path.write_text('["text"]\n')
    with pytest.raises(DataError, match="not a JSON object"):
        list(read_texts(path, "text"))


def test_not_utf8_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\n\xff\xfe\n")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_texts(tmp_path / "a.csv", "text"))


@pytest.mark.parametrize("name", ["in.xlsx", "in", "in.csv.zip"])
def test_unknown_kinds_of_file_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what kind of file"):
        list(read_texts(tmp_path / name, "text"))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), writing(path) as add:
        add({"text": "new"})
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["out.csv"]


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"), writing(tmp_path / "no" / "out.csv"):
        pytest.fail("nothing can be written")


def test_csv_text_is_csv() -> None:
    rows = list(csv.DictReader(as_csv(RECORDS).splitlines(keepends=True)))
    assert [row["text"] for row in rows] == AWKWARD
    many = [{"text": f"a {i}"} for i in range(3000)]
    parts = list(csv_parts(many))
    assert len(parts) == 3 and "\n".join(parts) == as_csv(many) and as_csv([]) == ""
    assert as_csv(many).splitlines() == ["text", *(record["text"] for record in many)]
    nested = as_csv([{"text": "a", "meta": {"k": [1]}, "flag": True}])
    row = next(csv.DictReader(nested.splitlines()))
    assert json.loads(row["meta"]) == {"k": [1]} and json.loads(row["flag"]) is True
