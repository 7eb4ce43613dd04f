"""What only the registries know about a study file: whether its students, schemes and values exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from kdsearch.core.errors import Problem, closest
from kdsearch.core.facts import Facts
from kdsearch.core.space import Space
from kdsearch.core.spec import StudySpec, VariantSpec
from kdsearch.core.studyfile import StudyFile, examine, failure
from kdsearch.search.dimensions import misfit, parameter_problems
from kdsearch.search.samplers import SAMPLERS
from kdsearch.search.spaces import TRAINING, Refused, Spaces, registered


def load(path: Path, env: Mapping[str, str], *, spaces: Spaces | None = None) -> StudyFile:
    """Read and check a study file; StudyFileError holds every mistake of it, whoever finds it."""
    file, problems = examine(path, env=env)
    found = (*problems, *spec_problems(file.spec, spaces or registered()))
    if found:
        raise failure(file, found)
    return file


def check(file: StudyFile, *, spaces: Spaces | None = None) -> None:
    """StudyFileError with all that the registries know against a file that was read."""
    found = tuple(spec_problems(file.spec, spaces or registered()))
    if found:
        raise failure(file, found)


def check_facts(file: StudyFile, facts: Facts) -> None:
    """StudyFileError with all that a file, which `check` let pass, asks for in vain: the study has it not."""
    found = tuple(facts_problems(file.spec, registered(facts)))
    if found:
        raise failure(file, found)


def facts_problems(spec: StudySpec, narrowed: Spaces) -> list[Problem]:
    """What a study refuses and the values that it cannot have, without positions."""
    return [
        *_refusals("student", spec.students, narrowed.refused_students),
        *_refusals("scheme", spec.schemes, narrowed.refused_schemes),
        *_variant_problems("student", spec.students, narrowed.students, refused=narrowed.refused_students),
        *_variant_problems("scheme", spec.schemes, narrowed.schemes, refused=narrowed.refused_schemes),
    ]


def _refusals(
    kind: str, variants: tuple[VariantSpec, ...] | None, refused: Mapping[str, Refused]
) -> list[Problem]:
    return [
        Problem(path=(f"{kind}s", index, "type"), **refused[variant.type]._asdict())
        for index, variant in enumerate(variants or ())
        if variant.type in refused
    ]


def spec_problems(spec: StudySpec, spaces: Spaces) -> list[Problem]:
    """Every mistake, without positions."""
    return [
        *_variant_problems("student", spec.students, spaces.students),
        *_variant_problems("scheme", spec.schemes, spaces.schemes),
        *_training_problems(spec),
        *_label_problems(spec),
        *_unknown("sampler", spec.search.sampler, SAMPLERS, ("search", "sampler")),
    ]


def _variant_problems(
    kind: str,
    variants: tuple[VariantSpec, ...] | None,
    known: Mapping[str, Space],
    *,
    refused: Iterable[str] = (),
) -> list[Problem]:
    problems: list[Problem] = []
    names: set[str] = set()
    for index, variant in enumerate(variants or ()):
        path, name = (f"{kind}s", index), variant.type
        if name in names:
            expected = "each type once; several values of a parameter are a list"
            message = f"the {kind} {name} stands twice"
            problems.append(Problem(path=(*path, "type"), message=message, expected=expected))
        elif name in known:
            problems += parameter_problems(known[name], variant.params, owner=f"{kind} {name}", path=path)
        problems += _unknown(kind, name, (*known, *refused), (*path, "type"))
        names.add(name)
    return problems


def _training_problems(spec: StudySpec) -> list[Problem]:
    found = (
        misfit(param, getattr(spec.training, name), name=name, path=("training", name))
        for name, param in TRAINING.items()
    )
    return [problem for problem in found if problem]


def _label_problems(spec: StudySpec) -> list[Problem]:
    labels = spec.data.labels
    if labels is None:
        return []
    _, names_one, label = spec.objectives.quality.partition(":")
    problems = _unknown("label", label, labels, ("objectives", "quality")) if names_one else []
    for theirs, ours in (spec.teacher.label_map or {}).items():
        problems += _unknown("label", ours, labels, ("teacher", "label_map", theirs))
    return problems


def _unknown(kind: str, name: str, known: Iterable[str], path: tuple[str | int, ...]) -> list[Problem]:
    options = tuple(known)
    if name in options:
        return []
    return [
        Problem(
            path=path,
            message=f"there is no {kind} {name!r}",
            expected="one of " + ", ".join(options),
            suggestion=closest(name, options),
        )
    ]
