"""What is struck how, when, and what else breaks meanwhile: the cases of the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

STRIKES = {
    "SIGKILL": "the process is gone at once",
    "SIGTERM": "it is told to leave",
    "SIGSTOP": "it stands still until its lease is over, then goes on (in a training it holds the host lock)",
    "exception": "an error that nobody expects is raised",
    "hang": "the thread that is there makes no further step",
}
MOMENTS = {
    "lease": "between the lease and the first step",
    "epoch": "in the middle of an epoch",
    "checkpoint": "while a checkpoint is being written",
    "row": "between a checkpoint in the artifact store and its row",
    "result": "while the result is reported",
}
VARIANTS = {
    "lease": ("fit", "measure"),
    "epoch": ("step", "validation"),
    "checkpoint": ("spool", "store"),
    "row": ("before", "after"),
    "result": ("committed", "before"),
}
"""By seed: the same moment elsewhere. `measure` holds the host lock alone, `fit` and `step` share it."""


@dataclass(frozen=True)
class Environment:
    """What is away or full while the blow falls, and for how long."""

    name: str
    seconds: float = 0.0
    postgres_is_away: bool = False
    disk_is_full: bool = False
    grace_s: float = 0.0
    """What the database leaves living workers after a start before it takes them for dead."""

    @property
    def says(self) -> str:
        """As a heading."""
        return self.name


ENVIRONMENTS = {
    found.name: found
    for found in (
        Environment("nothing"),
        Environment("restart", postgres_is_away=True, grace_s=5.0),
        Environment("full", seconds=3.0, disk_is_full=True),
        Environment("away 5 s", seconds=5.0, postgres_is_away=True, grace_s=10.0),
        Environment("away 60 s", seconds=60.0, postgres_is_away=True, grace_s=20.0),
    )
}


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    strike: str
    moment: str
    environment: str
    seed: int = 0

    @property
    def name(self) -> str:
        """As `--only` takes it, e.g. ``SIGKILL/epoch/away 5 s/0``."""
        return f"{self.strike}/{self.moment}/{self.environment}/{self.seed}"

    @property
    def variant(self) -> str:
        """Where exactly."""
        of_moment = VARIANTS[self.moment]
        return of_moment[self.seed % len(of_moment)]

    @property
    def in_main_thread(self) -> bool:
        """Whether it is the thread that trains which is struck, and not the one that delivers."""
        return self.moment in ("lease", "epoch") or self.variant == "spool"

    @property
    def fails_the_trial(self) -> bool:
        """An unexpected error in a training is the trial's failure; in a delivery it is the worker's."""
        return self.strike == "exception" and self.in_main_thread

    @property
    def exit_code(self) -> int:
        """How the process that was struck ends, if it was."""
        if self.strike == "exception":
            return 0 if self.in_main_thread else 1
        return {"SIGKILL": -9, "SIGTERM": 143, "SIGSTOP": 0, "hang": 1}[self.strike]


def all_cases(seeds: int) -> Iterator[Case]:
    """The whole matrix, the cheap environments first."""
    for seed, environment in product(range(seeds), ENVIRONMENTS):
        for strike, moment in product(STRIKES, MOMENTS):
            yield Case(strike, moment, environment, seed)


def chosen(only: str | None, seeds: int) -> list[Case]:
    """The cases whose names contain all of these words, e.g. ``SIGKILL epoch``."""
    words = (only or "").split(",")
    return [case for case in all_cases(seeds) if all(word.strip() in case.name for word in words)]
