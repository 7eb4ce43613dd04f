"""Readers: the same rows from every format, and a message with file and line for whatever is wrong."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kdsearch.core.errors import DataError
from kdsearch.core.specdata import SourceSpec
from kdsearch.data.readers import FORMATS, read_rows
from kdsearch.data.rows import Rows

Record = dict[str, Any]

AWKWARD: list[Record] = [
    {"id": 1, "text": 'She said "buy, now"', "label": "spam"},
    {"id": 2, "text": "two\nlines\r\nand a\ttab", "label": "ham"},
    {"id": 3, "text": "  spaces kept  ", "label": "ham"},
    {"id": 4, "text": "中文,评论 😀 é", "label": "spam"},
    {"id": 5, "text": "", "label": "ham"},
    {"id": 6, "text": "line\u2028separator\x0cfeed", "label": "spam"},
]


def write_delimited(path: Path, records: list[Record], delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(records)


def write_lines(path: Path, records: list[Record]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_parquet(path: Path, records: list[Record]) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=2)


WRITERS: dict[str, Callable[[Path, list[Record]], None]] = {
    ".csv": lambda path, records: write_delimited(path, records, ","),
    ".tsv": lambda path, records: write_delimited(path, records, "\t"),
    ".jsonl": write_lines,
    ".ndjson": write_lines,
    ".parquet": write_parquet,
}


def read(
    path: Path | str, *, label: str | None = "label", limit: int | None = None, text: str = "text"
) -> Rows:
    base = path.parent if isinstance(path, Path) else Path("/nowhere")
    return read_rows(
        SourceSpec(path=str(path), limit=limit), base=base, text=text, label=label, split="train"
    )


def refusal(path: Path | str, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    return caught.value


@pytest.fixture(params=sorted(FORMATS))
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, AWKWARD)
    if zipped:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    rows = read(path)
    assert rows.texts == [record["text"] for record in AWKWARD]
    assert rows.labels == [record["label"] for record in AWKWARD]
    assert read(path, label=None).labels == [None] * len(AWKWARD)
    assert read(path, limit=2).texts == rows.texts[:2]
    assert read(path, text="label", label="text").texts == rows.labels


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(), st.sampled_from(["a", "b", None])), min_size=1, max_size=8))
def test_any_text_survives_every_format(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    records = [{"text": text, "label": label} for text, label in rows]
    records.append({"text": "last", "label": "a"})
    for suffix, write in WRITERS.items():
        write(folder / f"rows{suffix}", records)
        assert read(folder / f"rows{suffix}") == Rows(
            [record["text"] for record in records], [record["label"] for record in records]
        ), suffix


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    for name, content in {"a.csv": "text,label\nx,1\n", "a.jsonl": '{"text": "x", "label": 1}\n'}.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert read(tmp_path / name) == Rows(["x"], ["1"])


def test_gzip_is_known_by_its_bytes_not_by_the_name(tmp_path: Path) -> None:
    content = b"text,label\nx,1\n"
    (tmp_path / "packed.csv").write_bytes(gzip.compress(content))
    (tmp_path / "plain.csv.gz").write_bytes(content)
    assert read(tmp_path / "packed.csv") == read(tmp_path / "plain.csv.gz") == Rows(["x"], ["1"])


def test_quotes_of_an_unquoted_tsv_are_characters(tmp_path: Path) -> None:
    lines = ["text\tlabel", '"Great" film\t1', 'the so-called "plot\t0', '"unclosed\t1', "5' 11\"\t0"]
    (tmp_path / "rows.tsv").write_text("\n".join(lines) + "\n")
    rows = read(tmp_path / "rows.tsv")
    assert rows.texts == ['"Great" film', 'the so-called "plot', '"unclosed', "5' 11\""]
    assert rows.labels == ["1", "0", "1", "0"]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n\nx,1\n\n\ny,0\n\n")
    (tmp_path / "a.jsonl").write_text('\n{"text": "x", "label": 1}\n  \n{"text": "y", "label": 0}\n\n')
    assert read(tmp_path / "a.csv") == read(tmp_path / "a.jsonl") == Rows(["x", "y"], ["1", "0"])


@pytest.mark.parametrize(
    ("value", "label"),
    [(1, "1"), (0, "0"), (1.0, "1"), (0.5, "0.5"), (True, "true"), (False, "false"), ("01", "01"),
     (" a ", "a"), ("", None), ("  ", None), (None, None), (float("nan"), None)],
)  # fmt: skip
def test_labels_of_any_kind_are_names(tmp_path: Path, value: object, label: str | None) -> None:
    for suffix in (".jsonl", ".parquet"):
        path = tmp_path / f"rows{suffix}"
        WRITERS[suffix](path, [{"text": "x", "label": value}])
        assert read(path).labels == [label]


def test_integers_with_gaps_which_tables_keep_as_floats_stay_integers(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", "b", "c"], "label": pyarrow.array([1.0, float("nan"), 0.0])})
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet").labels == ["1", None, "0"]


def test_dictionary_columns_of_parquet_are_read_as_their_values(tmp_path: Path) -> None:
    names = pyarrow.array(["ham", "spam", "ham"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"text": names, "label": names}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == Rows(["ham", "spam", "ham"], ["ham", "spam", "ham"])


def test_half_a_surrogate_pair_becomes_text_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "cut \\ud83d", "label": 1}\n{"text": "\\ud83d\\ude00", "label": 1}\n'
    )
    assert read(tmp_path / "a.jsonl").texts == ["cut \ufffd", "😀"]


def test_a_glob_reads_its_files_in_order_of_name_up_to_the_limit(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / "deep" / name).mkdir(parents=True)
        write_lines(
            tmp_path / "deep" / name / "x.jsonl", [{"text": f"{name}{i}", "label": 1} for i in range(2)]
        )
    assert read(tmp_path / "deep" / "**" / "*.jsonl").texts == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert read(tmp_path / "deep" / "?" / "x.jsonl", limit=3).texts == ["a0", "a1", "b0"]
    assert read(tmp_path / "deep" / "[ab]" / "x.jsonl", limit=2).texts == ["a0", "a1"]


def test_a_file_with_brackets_in_its_name_is_that_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows[1].jsonl", [{"text": "x", "label": 1}])
    assert read(tmp_path / "rows[1].jsonl").texts == ["x"]


def test_relative_paths_start_at_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"text": "x", "label": 1}])
    monkeypatch.chdir("/")
    spec = SourceSpec(path="rows.jsonl")
    assert read_rows(spec, base=tmp_path, text="text", label="label", split="train").texts == ["x"]


# ---------------------------------------------------------------- what is wrong, and where


def test_a_missing_column_lists_those_there_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, [{"texts": "x", "Label": "a"}])
    error = refusal(path)
    assert error.what == "no column 'text'; the columns are 'texts', 'Label'"
    assert error.hint.startswith("did you mean 'texts'?")
    assert error.where is not None
    assert error.where.file == str(path)
    assert refusal(path, text="texts").hint.startswith("did you mean 'Label'?")


@pytest.mark.parametrize(
    ("name", "content", "line", "what", "hint"),
    [
        ("a.csv", "text,label\nx,1\na,b,0\n", 3, "row 2 has 3 cells, the header 2", "must be quoted"),
        ("a.csv", 'text,label\nx,1\n"open,0\nmore\n', 4, "broken quoting", "never closed"),
        ("a.csv", "text,label,text\nx,1,y\n", 1, "the column 'text' stands twice", "rename"),
        ("a.csv", "", 1, "no column 'text'; the columns are none", "data:"),
        ("a.tsv", "text\tlabel\nx\t1\ny\n", 3, "row 2 has 1 cells, the header 2", "must be quoted"),
        ("a.jsonl", '{"text": "x"}\n{"text": "y",}\n', 2, "not JSON", "one object a line"),
        ("a.jsonl", '[{"text": "x"}]\n', 1, "list instead of a JSON object", "one object a line"),
        ("a.jsonl", "[" * 100_000 + "\n", 1, "not JSON", "one object a line"),
        ("a.jsonl", '{"text": "x", "label": 1}\n\n{"txt": "y"}\n', 3, "no column 'text'", "mean 'txt'?"),
        ("a.jsonl", '{"text": 5, "label": 1}\n', 1, "row 1: the text is int '5'", "right column"),
        ("a.jsonl", '{"text": "x", "label": [1]}\n', 1, "row 1: the label is list '[1]'", "right column"),
        ("a.jsonl", '{"text": "x", "lable": 1}\n', None, "no column 'label'", "did you mean 'lable'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_and_line(
    tmp_path: Path, name: str, content: str, line: int | None, what: str, hint: str
) -> None:
    (tmp_path / name).write_text(content)
    error = refusal(tmp_path / name)
    assert what in error.what
    assert hint in error.hint
    assert error.where is not None
    assert (error.where.file, error.where.line) == (str(tmp_path / name), line)


def test_a_row_of_json_may_lack_its_label(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "x"}\n{"text": "y", "label": "a"}\n{"text": null, "label": null}\n'
    )
    assert read(tmp_path / "a.jsonl") == Rows(["x", "y", ""], [None, "a", None])


@pytest.mark.parametrize(
    ("name", "content", "what", "hint"),
    [
        ("a.csv", "text,label\ncaf\xe9,1\n".encode("latin-1"), "is not UTF-8 text", "iconv"),
        ("a.csv", "text,label\nx,1\n".encode("utf-16"), "is not UTF-8 text", "iconv"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 500, mtime=0)[:40], "damaged gzip", "again"),
        ("a.jsonl.gz", b"\x1f\x8bnot really", "damaged gzip", "again"),
        ("a.parquet", b"PAR1 and no more", "not a readable Parquet file", ""),
        ("a.parquet.gz", gzip.compress(b"PAR1 no", mtime=0), "not a readable Parquet file", ""),
        ("a.xlsx", b"", "no reader for .xlsx", ".csv, .tsv, .jsonl"),
        ("plain", b"", "no reader for a file without an ending", ".csv"),
        ("a.csv", b"text,label\n", "holds no rows", ""),
        ("a.jsonl", b"", "holds no rows", ""),
    ],
)  # fmt: skip
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes, what: str, hint: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert what in error.what
    assert name in error.what
    assert hint in error.hint


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"text": "x", "label": 1}])
    error = refusal(tmp_path / "trian.jsonl")
    assert error.what == f"{tmp_path / 'trian.jsonl'} does not exist"
    assert error.hint == "did you mean 'train.jsonl'?"
    assert "holds train.jsonl" in refusal(tmp_path / "*.csv").hint
    assert "nor does the folder" in refusal(tmp_path / "none" / "train.jsonl").hint


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"text": "x", "label": 1}])
    error = refusal(tmp_path)
    assert "is a folder" in error.what
    assert "holds train.jsonl" in error.hint


def test_an_unknown_address_names_the_known_ones() -> None:
    error = refusal("s3://bucket/train.csv")
    assert "s3:// is not a kind of source" in error.what
    assert error.hint == "a path, hf://, synthetic://"
    assert error.exit_code == 2
