"""How much memory a training took: the process's resident set, or what torch allocated on a GPU."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Of this process, now; where the system does not say (no /proc), the most it ever had."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_back() -> None:
    """Hand the system what is free: glibc keeps it, and a small trial would seem as large as one before."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # not in musl
        trim(0)


def free(device: str) -> None:
    """After an error for want of memory: what nobody refers to any more is really free."""
    give_back()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


class PeakMemory:
    """The largest of all samples; on CUDA torch keeps it by itself."""

    def __init__(self, device: str) -> None:
        self._cuda = device if device.startswith("cuda") else None
        self._largest = 0
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        else:
            give_back()
        self.sample()

    def sample(self) -> None:
        """Look; call it at every step."""
        if self._cuda is None:
            self._largest = max(self._largest, resident_bytes())

    @property
    def megabytes(self) -> float:
        """10^6 bytes."""
        largest = self._largest if self._cuda is None else torch.cuda.max_memory_allocated(self._cuda)
        return largest / 1e6
