"""Strike workers at exact moments and look at what is on record: the fault matrix.

    .venv/bin/python -m benchmarks.faults [--only SIGKILL,epoch] [--seeds 2] [--jobs 2] [--out FILE]

Each case is a line of the journal; a run that was ended goes on where it was (after SIGTERM it ends with the
cases under way). Needs no GPU and no network.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from benchmarks.faults import matrix
from benchmarks.faults.cases import chosen
from kdsearch.core.errors import EXIT_TERMINATED


def main() -> int:
    """1 where a case failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="WORDS", help="cases whose names contain all of these, by commas")
    parser.add_argument("--seeds", type=int, default=1, help="other places of the same moments; 2 are all")
    parser.add_argument("--jobs", type=int, default=1, help="so many servers and studies side by side")
    parser.add_argument("--journal", type=Path, default=Path("faults.jsonl"), help="what was found so far")
    parser.add_argument("--out", type=Path, help="where the table goes; else to the terminal")
    parser.add_argument("--no-run", action="store_true", help="only show what is in the journal")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_TERMINATED))
    journal = matrix.Journal(options.journal)
    cases = chosen(options.only, options.seeds)
    if not options.no_run:
        matrix.run(cases, journal, jobs=options.jobs, say=lambda line: print(line, flush=True))
    text = matrix.report(
        journal, command=f".venv/bin/python -m benchmarks.faults {shlex.join(sys.argv[1:])}".strip()
    )
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)
    return int(any(entry.wrong for entry in journal.entries().values()))


if __name__ == "__main__":
    sys.exit(main())
