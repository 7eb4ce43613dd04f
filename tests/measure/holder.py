"""A process that trains or measures under a HostLock, and says so, until it is told to stop by a file.

python holder.py train|measure FOLDER STOP_FILE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kdsearch.measure.hostlock import HostLock


def train(lock: HostLock, stop: Path) -> None:
    with lock.training() as breathe:
        print("training", flush=True)
        while not stop.exists():
            time.sleep(0.002)
            breathe()


def measure(lock: HostLock, stop: Path) -> None:
    with lock.measuring(60) as alone:
        print("alone" if alone else "not alone", flush=True)
        while not stop.exists():
            time.sleep(0.002)


if __name__ == "__main__":
    {"train": train, "measure": measure}[sys.argv[1]](HostLock(Path(sys.argv[2])), Path(sys.argv[3]))
