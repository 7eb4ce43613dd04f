"""What can be searched: the parameters of every registered student, scheme and of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kdsearch.core.facts import Facts
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


class Refused(NamedTuple):
    """Why a study cannot have a student or scheme."""

    message: str
    expected: str


@dataclass(frozen=True)
class Spaces:
    """The space of each student and scheme that can be had, by its YAML name."""

    students: Mapping[str, Space]
    schemes: Mapping[str, Space]
    refused_students: Mapping[str, Refused] = field(default_factory=dict)
    refused_schemes: Mapping[str, Refused] = field(default_factory=dict)


def registered(facts: Facts | None = None) -> Spaces:
    """Of the students and schemes that exist, narrowed to what a study offers; loads torch.

    Without facts: all that any study could ask for.
    """
    from kdsearch.distill.schemes import SCHEMES
    from kdsearch.students import STUDENTS

    if facts is None:
        return Spaces(
            students={name: student.SPACE for name, student in STUDENTS.items()},
            schemes={name: scheme.SPACE for name, scheme in SCHEMES.items()},
        )
    no_student = {name: student.refusal(facts) for name, student in STUDENTS.items()}
    no_scheme = {name: scheme.refusal(facts) for name, scheme in SCHEMES.items()}
    return Spaces(
        students={name: s.space(facts) for name, s in STUDENTS.items() if no_student[name] is None},
        schemes={name: s.space(facts) for name, s in SCHEMES.items() if no_scheme[name] is None},
        refused_students={name: Refused(*why) for name, why in no_student.items() if why is not None},
        refused_schemes={name: Refused(*why) for name, why in no_scheme.items() if why is not None},
    )
