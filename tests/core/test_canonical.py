"""Equal values have one text and one name."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.core.canonical import canonical_json, sha256_hex, sha256_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_survives_the_trip_and_stays_canonical(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_count(value: dict[str, int]) -> None:
    backwards = dict(reversed(value.items()))
    assert sha256_of(backwards) == sha256_of(value)


@given(JSON, JSON)
def test_different_text_different_name(a: object, b: object) -> None:
    assert (sha256_of(a) == sha256_of(b)) == (canonical_json(a) == canonical_json(b))


def test_text_and_bytes_hash_alike() -> None:
    assert sha256_hex("λ") == sha256_hex("λ".encode()) == hashlib.sha256("λ".encode()).hexdigest()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": value})
