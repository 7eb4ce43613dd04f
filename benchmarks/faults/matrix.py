"""The whole matrix: cases run one after another on each ground, journalled line by line, shown as a table."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from queue import Empty, SimpleQueue

from benchmarks.faults import ground as ground_module
from benchmarks.faults import strike
from benchmarks.faults.cases import ENVIRONMENTS, MOMENTS, STRIKES, VARIANTS, Case
from benchmarks.faults.ground import EPOCHS, STEPS, TRIALS
from benchmarks.faults.strike import Outcome

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    case: str
    wrong: list[str]
    seconds: float
    left_after_s: float | None
    again: int
    ends: list[str]
    commit: str
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class Journal:
    """What was found so far: a file of JSON lines, of which the last one of a case counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()

    def entries(self) -> dict[str, Entry]:
        """By case."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = [Entry(**json.loads(line)) for line in lines]
        return {entry.case: entry for entry in found}

    def add(self, outcome: Outcome, commit: str) -> Entry:
        """Keep what came of a case."""
        entry = Entry(**asdict(outcome), commit=commit)
        with self._writing, self.path.open("a") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
        return entry


def commit_here() -> str:
    """Which code this is."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def run(cases: Sequence[Case], journal: Journal, *, jobs: int, say: Callable[[str], None]) -> None:
    """Run what is not in the journal yet."""
    known = journal.entries()
    waiting: SimpleQueue[Case] = SimpleQueue()
    for case in cases:
        if case.name not in known:
            waiting.put(case)
    say(f"{waiting.qsize()} cases to run, {len(cases) - waiting.qsize()} are in {journal.path}")
    if waiting.empty():
        return
    commit = commit_here()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in [pool.submit(_take_turns, waiting, journal, commit, say) for _ in range(jobs)]:
                done.result()
        except BaseException:  # told to end: after the cases under way, and with everything put away
            with suppress(Empty):
                while True:
                    waiting.get_nowait()
            raise


def _take_turns(
    waiting: SimpleQueue[Case], journal: Journal, commit: str, say: Callable[[str], None]
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="kdsearch-faults-") as folder,
        ground_module.laid(Path(folder)) as ground,
    ):
        wrong = strike.undisturbed(ground)
        if wrong:
            raise AssertionError(f"a study that nothing happens to is wrong already: {wrong}")
        count = 0
        while True:
            try:
                case = waiting.get_nowait()
            except Empty:
                return
            entry = journal.add(strike.run(case, ground, f"case_{count}"), commit)
            count += 1
            say(f"{case.name:40} {entry.seconds:6.1f} s  {'ok' if not entry.wrong else entry.wrong}")


# ---------------------------------------------------------------- the report


def report(journal: Journal, *, command: str) -> str:
    """Markdown: what was done, the table, and everything that was wrong."""
    entries = journal.entries()
    failed = [entry for entry in entries.values() if entry.wrong]
    commits = sorted({entry.commit for entry in entries.values()})
    days = sorted({entry.at[:10] for entry in entries.values()})
    template = (HERE / "report.md").read_text()
    return template.format(
        command=command,
        days=" to ".join(dict.fromkeys((days[0], days[-1]))) if days else "never",
        commits=", ".join(f"`{commit}`" for commit in commits),
        num_cases=len(entries),
        num_of=len(STRIKES) * len(MOMENTS) * len(ENVIRONMENTS),
        num_failed=len(failed) or "none",
        trials=TRIALS,
        epochs=EPOCHS,
        steps=STEPS,
        table=table(entries),
        moments="\n".join(
            f"- **{name}**: {says} ({' / '.join(VARIANTS[name])})" for name, says in MOMENTS.items()
        ),
        strikes="\n".join(f"- **{name}**: {says}" for name, says in STRIKES.items()),
        leaving=_leaving(entries.values()),
        again=max((entry.again for entry in entries.values()), default=0),
        failures=_failures(failed),
    )


def table(entries: dict[str, Entry]) -> str:
    """A row per strike and moment, a column per environment."""
    lines = [
        "| struck by | at | " + " | ".join(ENVIRONMENTS) + " |",
        "|---|---|" + "---|" * len(ENVIRONMENTS),
    ]
    for struck, moment in product(STRIKES, MOMENTS):
        cells = [_cell(entries, f"{struck}/{moment}/{environment}/") for environment in ENVIRONMENTS]
        lines.append(f"| {struck} | {moment} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(entries: dict[str, Entry], prefix: str) -> str:
    of_cell = [entry for name, entry in entries.items() if name.startswith(prefix)]
    if not of_cell:
        return "not run"
    good = [entry for entry in of_cell if not entry.wrong]
    seconds = max(entry.seconds for entry in of_cell)
    said = "ok" if len(good) == len(of_cell) else "**FAILED**"
    shares = f" {len(good)}/{len(of_cell)}" if len(of_cell) > 1 else ""
    return f"{said}{shares}, {seconds:.0f} s"


def _leaving(entries: Iterable[Entry]) -> str:
    seconds = sorted(entry.left_after_s for entry in entries if entry.left_after_s is not None)
    if not seconds:
        return "no process was told to leave"
    return f"{len(seconds)} processes, median {seconds[len(seconds) // 2]:.1f} s, longest {seconds[-1]:.1f} s"


def _failures(failed: Sequence[Entry]) -> str:
    if not failed:
        return "None."
    return "\n".join(
        f"- `{entry.case}` ({entry.commit}): {'; '.join(wrong[:600] for wrong in entry.wrong)}"
        for entry in failed
    )
