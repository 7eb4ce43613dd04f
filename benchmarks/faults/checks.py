"""What a case must find on record: what is wrong in itself, by SQL, and what an undisturbed study has not."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.faults.cases import Case
from benchmarks.faults.ground import STEPS, UNDISTURBED, Ground
from kdsearch.store.sql import parse

HERE = Path(__file__).parent
Rows = list[tuple[object, ...]]


@functools.cache
def wrongs() -> Mapping[str, str]:
    """Queries that give what is wrong; a name says what that would be."""
    return parse((HERE / "checks.sql").read_text())


@functools.cache
def known() -> Mapping[str, str]:
    """Queries that give what is there."""
    return parse((HERE / "known.sql").read_text())


def found_wrong(ground: Ground, name: str, failed: int = -1) -> list[str]:
    """Everything that is wrong with a copy of the study; `failed` is the one trial that must have failed."""
    found = [
        f"{wrong.replace('_', ' ')}: {rows}"
        for wrong, query in wrongs().items()
        if (rows := ground.query(name, query, failed=failed))
    ]
    return [
        *found,
        *_otherwise(ground, name, failed),
        *left_over(ground.folder / name),
        *_not_stored(ground, name),
        *_again(ground.folder / name),
    ]


def _otherwise(ground: Ground, name: str, failed: int) -> Iterator[str]:
    """Results and learning curves are those of a study that nobody disturbed, bit for bit."""
    for what in ("results", "curves"):
        ours, theirs = (
            [row for row in ground.query(where, known()[what]) if row[0] != failed]
            for where in (name, UNDISTURBED)
        )
        if ours != theirs:
            yield f"{what} differ: {[pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]]}"


def left_over(folder: Path) -> Iterator[str]:
    """Nothing waits on this disk for a delivery that never comes."""
    left = [str(path.relative_to(folder)) for path in (folder / "home" / "spool").rglob("*.json")]
    if left:
        yield f"never delivered: {left}"


def _not_stored(ground: Ground, name: str) -> Iterator[str]:
    """What is on record is in the artifact store."""
    for row in ground.query(name, known()["results"]):
        for sha256 in (str(row[3]), str(row[4])):
            if not (ground.folder / name / "artifacts" / sha256[:2] / sha256).exists():
                yield f"trial {row[0]} names {sha256}, which is not in the artifact store"


TRAINING, DELIVERING, WOKEN = ["training"], ["delivering"], ["woken"]
NOTES = (TRAINING, DELIVERING, WOKEN)
"""Lines of the journal that are no steps: the thread that waits to be struck; a worker that is woken."""


def steps(folder: Path) -> list[tuple[str, int, int, int]]:
    """Every step begun by any worker, in order: worker, trial, attempt, position in the trial.

    Without those of a worker that is woken when its trial is let go: nobody loses what it does in vain.
    """
    found, in_vain = [], set()
    for worker, number, attempt, *where in _journal(folder):
        if where == WOKEN:
            in_vain.add((worker, number, attempt))
        elif where not in NOTES and (worker, number, attempt) not in in_vain:
            found.append((worker, int(number), int(attempt), STEPS * int(where[0]) + int(where[1])))
    return found


def _journal(folder: Path) -> list[list[str]]:
    path = folder / "steps.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def trained_meanwhile(folder: Path) -> dict[int, int]:
    """By trial: steps that a worker made since the checkpoint which its struck thread was to deliver.

    Those of the epoch that had begun by then, and all later ones, until another attempt takes over.
    """
    begun: dict[str, int] = {}
    struck: dict[str, str] = {}
    found: dict[int, int] = {}
    for _, number, attempt, *where in _journal(folder):
        if where in NOTES:
            if where == DELIVERING:
                struck[number], found[int(number)] = attempt, begun.get(number, 0) % STEPS
        elif struck.get(number) == attempt:
            found[int(number)] += 1
        else:
            struck.pop(number, None)
            begun[number] = int(where[1]) + 1
    return found


def trained_again(folder: Path) -> dict[tuple[int, int], int]:
    """By trial and attempt: how many steps somebody had done before this attempt did them again."""
    reached: dict[int, int] = {}
    begun: dict[tuple[int, int], int] = {}
    for _, number, attempt, position in steps(folder):
        begun.setdefault((number, attempt), reached.get(number, position) - position)
        reached[number] = max(reached.get(number, 0), position)
    return {which: again for which, again in begun.items() if which[1] > 1}


def _again(folder: Path) -> Iterator[str]:
    """At most an interval between two checkpoints, here an epoch, and what nobody could deliver meanwhile."""
    meanwhile = trained_meanwhile(folder)
    for (number, attempt), again in trained_again(folder).items():
        allowed = STEPS + meanwhile.get(number, 0)
        if again > allowed:
            yield f"attempt {attempt} at trial {number} trained {again} steps again, allowed are {allowed}"


def struck(case: Case, exit_code: int, said: str, ends: Rows) -> Iterator[str]:
    """What speaks against the fault's having struck."""
    if exit_code != case.exit_code:
        yield f"the worker that was struck ended with {exit_code}, not {case.exit_code}"
    if case.strike == "hang" and "the process ends" not in said:
        yield "nobody noticed that it hung"
    if case.strike == "exception" and "an error that nobody expects" not in said:
        yield "nobody said that an error was raised"
    # What waited for its delivery another worker of the host delivers: then no attempt is lost, either.
    if case.strike == "SIGKILL" and case.in_main_thread and not any("lost" in str(row[1]) for row in ends):
        yield f"no attempt was lost: {ends}"
