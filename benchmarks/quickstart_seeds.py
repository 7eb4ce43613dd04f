"""The quickstart over several seeds of its generator: kinds of student on the front, and seconds taken.

    .venv/bin/python benchmarks/quickstart_seeds.py [--seeds 1 2 3 4 5]

Each seed is a study of its own in a state folder of its own. Ends with 1 if a front has fewer than two kinds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STUDY = Path(__file__).parents[1] / "studies" / "quickstart.yaml"


def reseeded(text: str, seed: int) -> str:
    """The study with pools from other seeds: 10 * seed + 1, 2 and 3."""
    return re.sub(r"(rows=\d+&seed=)(\d+)", lambda m: f"{m[1]}{10 * seed + int(m[2])}", text)


def run(seed: int) -> tuple[dict[str, Any], float]:
    """The answer of `kdsearch run --json`, and its wall-clock seconds."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-seeds-") as folder:
        study = Path(folder) / "quickstart.yaml"
        study.write_text(reseeded(STUDY.read_text(), seed))
        command = [sys.executable, "-m", "kdsearch", "run", str(study), "--workers", "2", "--json"]
        environment = {**os.environ, "KDSEARCH_HOME": str(Path(folder) / "state")}
        began = time.perf_counter()
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    data: dict[str, Any] = json.loads(ended.stdout)["data"]
    return data, time.perf_counter() - began


def main() -> int:
    """Print a line a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    fewest = 99
    for seed in parser.parse_args().seeds:
        data, seconds = run(seed)
        front = [trial for trial in data["trials"] if trial["on_front"]]
        kinds = sorted({trial["student"] for trial in front})
        fewest = min(fewest, len(kinds))
        points = ", ".join(f"{t['student']}/{t['scheme']} {t['quality']:.3f}" for t in front)
        teacher = data["teacher"]["quality"]
        print(
            f"seed {seed}: {len(kinds)} kinds on front ({points}); teacher {teacher:.3f}; {seconds:.0f} s",
            flush=True,
        )
    return 0 if fewest >= 2 else 1


if __name__ == "__main__":
    sys.exit(main())
