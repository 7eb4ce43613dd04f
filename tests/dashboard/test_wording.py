"""Numbers and words as people read them."""

from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import wording

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (wording.share(0.96123), "0.9612"),
        (wording.share(None), "—"),
        (wording.share(math.nan), "—"),
        (wording.ms(0.41234), "0.412 ms"),
        (wording.count(950), "950"),
        (wording.count(22_713_216), "22.7 M"),
        (wording.count(999.9), "1 k"),
        (wording.times(20.0, 0.4), "50×"),
        (wording.times(80.346, 0.026), "3,090×"),
        (wording.times(None, 0.4), ""),
        (wording.points(-0.013), "−1.3 points"),
        (wording.duration(12.3), "12 s"),
        (wording.duration(5040), "84.0 min"),
        (wording.ago(NOW - timedelta(seconds=5), NOW), "5 s ago"),
        (wording.plural(1, "trial"), "1 trial"),
        (wording.plural(1200, "trial"), "1,200 trials"),
    ],
)
def test_figures(said: str, expected: str) -> None:
    assert said == expected


def test_what_a_person_wrote_is_no_markdown() -> None:
    assert wording.plain("![x](http://a.b) <b>\n$y$") == r"\!\[x\]\(http\://a.b\) \<b\> \$y\$"


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False)), max_size=5))
def test_csv_reads_back(rows: list[tuple[str, float]]) -> None:
    names, values = [row[0] for row in rows], [row[1] for row in rows]
    read = list(csv.reader(io.StringIO(wording.as_csv({"name": names, "value": values}), newline="")))
    assert read[0] == ["name", "value"]
    assert [(name, float(value)) for name, value in read[1:]] == rows
