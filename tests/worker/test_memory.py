"""Peak memory of a training: what an earlier one left behind is no part of it."""

from __future__ import annotations

import ctypes
import sys

import pytest

from kdsearch.worker.memory import PeakMemory, resident_bytes

MB = 1_000_000


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's own"
)
def test_memory_that_was_used_before_is_not_counted() -> None:
    blocks = [bytearray(60_000) for _ in range(2000)]
    above = bytearray(60_000)  # keeps the heap from shrinking by itself
    full = resident_bytes() / MB
    del blocks
    assert PeakMemory("cpu").megabytes < full - 80
    assert len(above) == 60_000


def test_the_largest_sample_counts() -> None:
    peak = PeakMemory("cpu")
    before = peak.megabytes
    block = bytearray(b"x") * (100 * MB)
    peak.sample()
    del block
    peak.sample()
    assert peak.megabytes > before + 80
