"""Enqueueing: a configuration that a person asks for is tried next; what it leaves open is sampled.

It gets its trial number at once, as a trial that Optuna runs and that nobody leased: the next worker that
claims adopts it before anything new is proposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdsearch.core.errors import ConflictError, UsageError, did_you_mean
from kdsearch.core.mistakes import shown
from kdsearch.core.space import Choice, Dimension, Fixed, Param, Scalar, encode
from kdsearch.core.studyfile import spec_from_json
from kdsearch.data.inputs import Inputs
from kdsearch.search import ending
from kdsearch.search.asking import Search
from kdsearch.search.dimensions import holds
from kdsearch.search.drawing import Refusals, Stored, spare
from kdsearch.search.known import Known
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import TRAINING, registered
from kdsearch.store import leases, reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.store.studies import StudyRecord


def enqueue(store: Store, study_name: str, params: Mapping[str, Any]) -> int:
    """Have a configuration tried next; the number of its trial.

    ``params`` are named as `TrialConfig.params` names them (``textcnn.filters``); some may be left out. The
    same asked for twice, before anybody took it up, is one trial. Raises NotFoundError, UsageError for what
    the study cannot try, ConflictError where it was tried or no budget is left.
    """
    study = studies.find_study(store.engine, study_name)
    _check_open(study)
    inputs = Inputs.load(store.of_study(study.artifacts_url).blobs, study.dataset_sha256)
    plan = Plan(spec_from_json(study.spec_json), registered(inputs.facts))
    fixed = fixed_params(plan, params, study=study.name)
    search = Search.open(optuna_storage(store), study.optuna_name, plan)
    with leases.study_turn(store.engine, study.id) as connection:
        known = leases.known_numbers(connection, study.id)
        budget = studies.budget_state(connection, study.id)
        enqueued = search.enqueued(known)
        for number, same in enqueued.items():
            if same == fixed:
                return number
        why = ending.spent(budget, plan.spec)
        if not why and budget.num_trials + len(enqueued) >= budget.max_trials:
            why = "the rest of its budget is for trials that are enqueued already"
        if why:
            raise ConflictError(
                f"study {study.name!r} begins no further trial: {why}",
                hint=f"kdsearch study extend {study.name} --trials 1",
            )
        tried = reads.history(connection, study.id, plan.spec.objectives.latency, with_epochs=False)
        _check_new(plan, Known(tried=tried), fixed, study.name)
        return search.enqueue(fixed)


def _check_open(study: StudyRecord) -> None:
    if study.state in ("open", "paused"):
        return
    why = f": {study.error}" if study.error else ""
    raise ConflictError(
        f"study {study.name!r} is {study.state}{why}",
        hint=f"`kdsearch study extend {study.name} --trials N` lets it go on",
    )


def _check_new(plan: Plan, known: Known, fixed: Mapping[str, Stored], study: str) -> None:
    """ConflictError if no configuration with these values is left to be tried."""
    refusals = Refusals(known, plan)
    rng = np.random.default_rng(plan.spec.search.seed)
    if spare(plan, refusals.is_new, rng, fixed) is not None:
        return
    same = [t.number for t in known.tried if t.state != "failed" and _has(t.config.params, fixed)]
    which = f"trial {same[0]}" if len(same) == 1 else f"trials {', '.join(map(str, same[:5]))}"
    raise ConflictError(
        f"every configuration of study {study!r} with these values was tried already: {which}",
        hint=f"`kdsearch trial rerun {study} {same[0]} --seeds 1` trains it with another seed"
        if same
        else f"kdsearch trial list {study}",
    )


def _has(params: Mapping[str, Scalar], fixed: Mapping[str, Stored]) -> bool:
    return all(name in params and encode(params[name]) == value for name, value in fixed.items())


# ---------------------------------------------------------------- what a person asked for


def fixed_params(plan: Plan, params: Mapping[str, Any], *, study: str) -> dict[str, Stored]:
    """What is decided of the trial, as Optuna names and keeps it; UsageError for what cannot be."""
    asked = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    asked |= _implied(plan, asked)
    _check_variant(plan.students, asked, "student", study)
    _check_variant(plan.schemes, asked, "scheme", study)
    known = _searched(plan, str(asked.get("student", "")), str(asked.get("scheme", "")))
    fixed: dict[str, Stored] = {}
    for name, value in asked.items():
        if name in ("student", "scheme"):
            fixed[name] = str(value)
            continue
        if name not in known:
            raise _unknown(name, known, study)
        fixed[name] = encode(_checked(name, value, *known[name]))
    _check_conditions(fixed, known)
    return fixed


def _implied(plan: Plan, asked: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The student and the scheme that the other names speak of, where they are not named themselves."""
    implied: dict[str, Scalar] = {}
    for kind, variants in (("student", plan.students), ("scheme", plan.schemes)):
        spoken_of = {name.partition(".")[0] for name in asked if "." in name} & variants.keys()
        if kind not in asked and len(spoken_of) == 1:
            implied[kind] = spoken_of.pop()
    return implied


def _check_variant(variants: Mapping[str, Any], asked: Mapping[str, Scalar], kind: str, study: str) -> None:
    if kind in asked and asked[kind] not in variants:
        meant = did_you_mean(str(asked[kind]), variants)
        raise UsageError(
            f"study {study!r} has no {kind} {asked[kind]!r}", hint=meant or f"one of {', '.join(variants)}"
        )


def _searched(plan: Plan, student: str, scheme: str) -> dict[str, tuple[Param, Dimension]]:
    """Every parameter that can be decided, with what the study lets it be."""
    training = {
        "learning_rate": plan.spec.training.learning_rate,
        "batch_size": plan.spec.training.batch_size,
    }
    found = {name: (TRAINING[name], TRAINING[name].narrow(given)) for name, given in training.items()}
    parts = ((student, plan.spaces.students, plan.students), (scheme, plan.spaces.schemes, plan.schemes))
    for variant, spaces, narrowed in parts:
        for name, param in spaces[variant].items() if variant else ():
            dimension = param.narrow(narrowed[variant].get(name, param.default))
            found[f"{variant}.{name}"] = (param, dimension)
    return found


def _unknown(name: str, known: Mapping[str, object], study: str) -> UsageError:
    names = ["student", "scheme", *known]
    return UsageError(
        f"a trial of study {study!r} has no parameter {name!r} beside the others",
        hint=did_you_mean(name, names) or f"one of {', '.join(names)}",
    )


def _checked(name: str, value: Any, param: Param, dimension: Dimension) -> Scalar:
    """The value in its parameter's kind; UsageError unless the study searches it."""
    if param.kind == "ints" and isinstance(value, str):
        value = tuple(int(part) for part in value.split("-") if part.isdigit())
    if param.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, bool | int | float | str | tuple) or not param.accepts(value):
        raise UsageError(f"`{name}` cannot be {_shown(value)}", hint=param.expected())
    if not holds(dimension, value):
        raise UsageError(f"`{name}` of {_shown(value)} is not in the study's space", hint=_room(dimension))
    return value


def _room(dimension: Dimension) -> str:
    """What the study lets a parameter be."""
    if isinstance(dimension, Fixed):
        return f"it is always {_shown(dimension.value)} there"
    if isinstance(dimension, Choice):
        return f"one of {', '.join(_shown(option) for option in dimension.options)}"
    steps = f" in steps of {dimension.step:g}" if dimension.step else ""
    return f"from {dimension.low:g} to {dimension.high:g}{steps}"


def _shown(value: Any) -> str:
    return shown(list(value) if isinstance(value, tuple) else value)


def _check_conditions(fixed: dict[str, Stored], known: Mapping[str, tuple[Param, Dimension]]) -> None:
    """UsageError for a parameter that the others leave no place for; what it needs is decided with it."""
    for name, (param, _) in known.items():
        if param.when is None or name not in fixed:
            continue
        other = f"{name.partition('.')[0]}.{param.when[0]}"
        possible = [value for value in param.conditions if holds(known[other][1], value)]
        if other not in fixed and possible:
            fixed[other] = possible[0]
        if fixed.get(other) not in possible:
            raise UsageError(
                f"`{name}` exists only where `{other}` is {' or '.join(param.conditions)}",
                hint=f"leave it out, or decide that {other}={possible[0]}" if possible else "leave it out",
            )
