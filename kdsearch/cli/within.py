"""`--within latency_ms=5`: what a deployable student must keep to, and the best one that does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from kdsearch.core.errors import NothingFeasibleError, UsageError

if TYPE_CHECKING:
    from kdsearch.core.records import Standing
    from kdsearch.store.reads import TrialRow

WithinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--within", metavar="NAME=MAX", help="A ceiling: latency_ms=5 or size_mb=2; may be repeated."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Within:
    """Ceilings, both included."""

    latency_ms: float | None = None
    size_mb: float | None = None

    def admits(self, row: TrialRow) -> bool:
        """Whether a trial keeps to every ceiling; an unmeasured one keeps to none."""
        pairs = ((self.latency_ms, row.latency_ms), (self.size_mb, row.size_mb))
        return all(most is None or (value is not None and value <= most) for most, value in pairs)

    def __str__(self) -> str:
        named = {"latency_ms": self.latency_ms, "size_mb": self.size_mb}
        return ", ".join(f"{name} <= {most:g}" for name, most in named.items() if most is not None)


CEILINGS = ("latency_ms", "size_mb")


def parse(texts: Sequence[str] | None) -> Within:
    """From what stands on the command line: ``["latency_ms=5,size_mb=2"]``."""
    items = [item.strip() for text in texts or () for item in text.split(",")]
    return Within(**dict(_ceiling(item) for item in items))


def _ceiling(item: str) -> tuple[str, float]:
    name, sign, number = item.partition("=")
    if name not in CEILINGS or not sign:
        near = difflib.get_close_matches(name, CEILINGS, n=1, cutoff=0.3) or [CEILINGS[0]]
        raise UsageError(f"--within {item!r} names no ceiling", hint=f"for example: --within {near[0]}=5")
    try:
        most = float(number)
    except ValueError:
        most = 0.0
    if not 0 < most < float("inf"):
        raise UsageError(
            f"--within {item!r}: {number!r} is not a number above 0", hint=f"for example: --within {name}=5"
        )
    return name, most


def deployable(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The complete trials that keep to the study's own constraints."""
    return [
        row
        for row in rows
        if row.state == "complete" and row.feasible and row.quality is not None and row.latency_ms is not None
    ]


def nothing_deployable(rows: Sequence[TrialRow], study: str) -> tuple[str, str]:
    """Why a study has no deployable trial, and what to do about it."""
    held_up = sum(row.state == "rejected" or (row.state == "complete" and not row.feasible) for row in rows)
    if held_up:
        why = f"none of its {len(rows)} trials is complete and keeps to its constraints (broken by {held_up})"
        return why, f"kdsearch trial list {study} shows why; constraints and students stand in the study file"
    return "it has no complete trial yet", f"see how far it is: kdsearch study show {study}"


def _rank(row: TrialRow, mean: float | None) -> tuple[float, float, int]:
    return mean if mean is not None else row.quality or 0.0, -(row.latency_ms or 0.0), -row.number


def best_of(
    rows: Sequence[TrialRow], within: Within, *, study: str, standings: Iterable[Standing] = ()
) -> TrialRow:
    """Filter first, then the best quality; of equals the faster one.

    Where trials were trained with several seeds, the best mean among those: the quality of a single training
    was chosen for being high. Raises NothingFeasibleError, which names the fastest trial there is.
    """
    candidates = deployable(rows)
    inside = [row for row in candidates if within.admits(row)]
    if inside:
        known = list(standings)
        means = {standing.number: standing.quality for standing in known if len(standing.seeds) > 1}
        # Beside a trial that a person had trained again there are others with one seed: all of them count.
        sure = [row for row in inside if row.number in means] if len(means) == len(known) else []
        return max(sure or inside, key=lambda row: _rank(row, means.get(row.number)))
    if not candidates:
        why, hint = nothing_deployable(rows, study)
        raise NothingFeasibleError(f"study {study!r} has nothing to choose from: {why}", hint=hint)
    fastest = min(candidates, key=lambda row: (row.latency_ms or 0.0, row.number))
    raise NothingFeasibleError(
        f"no trial of study {study!r} lies within {within}; the fastest is trial {fastest.number} "
        f"({fastest.student}) with {fastest.latency_ms:.3g} ms, {fastest.size_mb or 0.0:.3g} MB "
        f"and quality {fastest.quality:.4f}",
        hint=f"raise the ceiling, or see what there is: kdsearch pareto {study}",
    )
