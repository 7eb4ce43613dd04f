"""How long `kdsearch --help` takes as a process, against an empty Python process.

Run: .venv/bin/python benchmarks/cli.py
The two are timed in turns, so that a busy machine slows both; quote the medians of one run together.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15


def seconds(*arguments: str) -> float:
    """Wall-clock seconds of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print both medians and the smallest values."""
    pairs = [(seconds("-c", "pass"), seconds("-m", "kdsearch", "--help")) for _ in range(ROUNDS)]
    for name, figures in zip(("python -c pass", "kdsearch --help"), zip(*pairs, strict=True), strict=True):
        print(f"{name:16} median {statistics.median(figures):.3f} s, minimum {min(figures):.3f} s")


if __name__ == "__main__":
    main()
