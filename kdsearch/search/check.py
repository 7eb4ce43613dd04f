"""What only the registries know about a study file: whether its students, schemes and values exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from kdsearch.core.errors import Problem, closest
from kdsearch.core.facts import Facts
from kdsearch.core.positions import YamlPath
from kdsearch.core.space import Space
from kdsearch.core.spec import StudySpec, VariantSpec
from kdsearch.core.studyfile import StudyFile, examine, failure
from kdsearch.search.dimensions import Scope, misfit, parameter_problems
from kdsearch.search.presets import PRESETS
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.samplers import SAMPLERS
from kdsearch.search.spaces import TRAINING, Refused, Spaces, registered

NO_PRUNER = "none"


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
    found = tuple(facts_problems(file.spec, registered(facts), facts))
    if found:
        raise failure(file, found)


def facts_problems(spec: StudySpec, narrowed: Spaces, facts: Facts) -> list[Problem]:
    """What a study refuses and the values that it cannot have, without positions."""
    lacking = _lacking(facts)
    scope = Scope(" in this study", f"; the study has no {', '.join(lacking)}" if lacking else "")
    return [
        *_refusals("student", spec.students, narrowed.students, narrowed.refused_students, scope),
        *_refusals("scheme", spec.schemes, narrowed.schemes, narrowed.refused_schemes, scope),
        *_depth_problems(spec, facts),
    ]


def _refusals(
    kind: str,
    variants: tuple[VariantSpec, ...] | None,
    known: Mapping[str, Space],
    refused: Mapping[str, Refused],
    scope: Scope,
) -> list[Problem]:
    problems: list[Problem] = []
    for index, variant in enumerate(variants or ()):
        path, name = (f"{kind}s", index), variant.type
        if name in refused:
            problems.append(Problem(path=(*path, "type"), **refused[name]._asdict()))
        elif name in known:
            owner = f"{kind} {name}"
            problems += parameter_problems(known[name], variant.params, owner=owner, path=path, scope=scope)
    return problems


def _depth_problems(spec: StudySpec, facts: Facts) -> list[Problem]:
    layers = spec.teacher.finetune.layers if spec.teacher.finetune else "all"
    if layers == "all" or facts.teacher_layers is None or layers.last <= facts.teacher_layers:
        return []
    return [
        Problem(
            path=("teacher", "finetune", "layers", "last"),
            message=f"the teacher has {facts.teacher_layers} layers, not {layers.last}",
            expected=f"all, or at most {facts.teacher_layers}",
        )
    ]


def _lacking(facts: Facts) -> list[str]:
    """What a study may have and this one has not, by the keys that would bring it."""
    lacks = {
        "data.unlabelled": "unlabelled" not in facts.pools,
        "data.augmented": "augmented" not in facts.pools,
        "pretrained.vectors": facts.vector_width is None,
        "pretrained.encoder": facts.encoder_layers is None,
        "teacher that runs here": not facts.trainable_teacher,
        "BERT for a teacher": facts.trainable_teacher and not facts.bert_teacher,
    }
    return [name for name, lacking in lacks.items() if lacking]


def spec_problems(spec: StudySpec, spaces: Spaces) -> list[Problem]:
    """Every mistake, without positions."""
    return [
        *_variant_problems("student", spec.students, spaces.students),
        *_variant_problems("scheme", spec.schemes, spaces.schemes),
        *_training_problems(spec),
        *_label_problems(spec),
        *_teacher_problems(spec),
        *_unknown("sampler", spec.search.sampler, SAMPLERS, ("search", "sampler")),
        *_unknown("pruner", spec.search.pruner, PRUNERS, ("search", "pruner")),
        *_rung_problems(spec),
        *_budget_problems(spec),
        *_preset_problems(spec.search.presets),
    ]


def _variant_problems(
    kind: str, variants: tuple[VariantSpec, ...] | None, known: Mapping[str, Space]
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
        problems += _unknown(kind, name, known, (*path, "type"))
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
    maps: dict[YamlPath, Mapping[str, str] | None] = {("teacher",): spec.teacher.label_map}
    maps |= {("teachers", i): historical.label_map for i, historical in enumerate(spec.teachers)}
    for path, label_map in maps.items():
        for theirs, ours in (label_map or {}).items():
            problems += _unknown("label", ours, labels, (*path, "label_map", theirs))
    for pool in ("train", "validation", "test", "unlabelled"):
        source = getattr(spec.data, pool)
        for i, label in enumerate(source.keep_labels or () if source else ()):
            problems += _unknown("label", label, labels, ("data", pool, "keep_labels", i))
    return problems


def _teacher_problems(spec: StudySpec) -> list[Problem]:
    """What the teacher cannot do for other sections."""
    problems = []
    if spec.teacher.logits is not None and spec.data.augmented is not None:
        message = "augmented texts have no logits: a teacher whose `logits` are given cannot be asked again"
        expected = "no `augmented`, or a teacher that runs here"
        problems.append(Problem(path=("data", "augmented"), message=message, expected=expected, on_key=True))
    for index, historical in enumerate(spec.teachers):
        if historical.slice is not None and spec.teacher.finetune is None:
            message = "a slice is fine-tuned like the study's teacher, and that one is not fine-tuned"
            path = ("teachers", index, "slice")
            expected = "`finetune: {epochs: 2}` under teacher, or `model: DIRECTORY` here"
            problems.append(Problem(path=path, message=message, expected=expected))
    return problems


def _rung_problems(spec: StudySpec) -> list[Problem]:
    """A pruner that never sees a trial before its end stops nothing."""
    first, epochs = spec.search.rungs.first, spec.training.epochs
    if spec.search.pruner == NO_PRUNER or first < epochs:
        return []
    return [
        Problem(
            path=("search", "rungs", "first"),
            message=f"the first rung is epoch {first}, and a training has {epochs}",
            expected=f"less than {epochs}" if epochs > 1 else f"more epochs, or `pruner: {NO_PRUNER}`",
        )
    ]


def _budget_problems(spec: StudySpec) -> list[Problem]:
    """A trial begins only while all its epochs are left: with fewer, none ever would."""
    budget, epochs = spec.budget.epochs, spec.training.epochs
    if budget is None or budget >= epochs:
        return []
    message = f"a budget of {budget} epochs is not enough for one trial, which takes {epochs}"
    return [Problem(path=("budget", "epochs"), message=message, expected=f"at least {epochs}")]


def _preset_problems(presets: tuple[str, ...]) -> list[Problem]:
    problems = []
    for index, preset in enumerate(presets):
        path = ("search", "presets", index)
        if preset in presets[:index]:
            message = f"the preset {preset} stands twice"
            problems.append(Problem(path=path, message=message, expected="each preset once"))
        problems += _unknown("preset", preset, PRESETS, path)
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
