"""What can be searched: the parameters of every registered student, scheme and of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdsearch.core.space import Choice, Param, Range, Space

CONTROL = "none"
"""The scheme that every study runs: without it nobody knows whether distilling paid."""
DEFAULT_SCHEMES = (CONTROL, "offline")

TRAINING: Space = {
    "learning_rate": Param(
        kind="float", default=Range(1e-4, 5e-3, log=True), low=0.0, high=1.0, open_low=True
    ),
    "batch_size": Param(kind="int", default=Choice((32, 64)), low=1, high=4096),
}


@dataclass(frozen=True)
class Spaces:
    """The space of each student and scheme, by its YAML name."""

    students: Mapping[str, Space]
    schemes: Mapping[str, Space]


def registered() -> Spaces:
    """Of the students and schemes that exist; loads torch."""
    from kdsearch.distill.schemes import SCHEMES
    from kdsearch.students import STUDENTS

    return Spaces(
        students={name: student.SPACE for name, student in STUDENTS.items()},
        schemes={name: scheme.SPACE for name, scheme in SCHEMES.items()},
    )
