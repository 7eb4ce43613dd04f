"""`kdsearch trial enqueue`: a configuration of one's own, tried next."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kdsearch.cli import output
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.core.errors import UsageError

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A parameter by its dotted name, e.g. textcnn.filters=128 or scheme=offline; may be repeated.",
    ),
]


def enqueue(
    options: Options,
    study: StudyArgument,
    params: SetOption = None,
    like: Annotated[
        int | None, typer.Option("--from", metavar="TRIAL", help="All else as this trial has it.")
    ] = None,
) -> None:
    """Have a configuration tried next; what is not said is sampled.

    It counts against the budget like any trial.

    Example: kdsearch trial enqueue sms-spam --set textcnn.filters=128 --set offline.lambda=0.5
    """
    asked = dict(_assignment(text) for text in params or ())
    if not asked and like is None:
        raise UsageError(
            "nothing was asked for", hint=f"kdsearch trial enqueue {study} --set textcnn.filters=128"
        )
    with options.writing() as store:
        from kdsearch.search.enqueueing import enqueue as enqueued
        from kdsearch.store import reads

        if like is not None:
            row = reads.study(store.engine, study)
            asked = changed(reads.trial(store.engine, row.id, like).params, asked)
        number = enqueued(store, study, asked)
    data = {"study": study, "trial": number, "params": asked}
    output.show(options, "enqueued", data, human=lambda: [f"trial {number} is tried next"], ids=[number])
    if not options.json:
        output.say(f"work on it: kdsearch worker start --study {study}", options=options)


def changed(params: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """A trial's parameters with others instead: those of another student or scheme make its own void."""
    found = dict(params)
    for kind in ("student", "scheme"):
        new = asked.get(kind, found[kind])
        if new != found[kind]:
            found = {name: value for name, value in found.items() if name.partition(".")[0] != found[kind]}
            found[kind] = new
    return {**found, **asked}


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise UsageError(f"--set {text!r} says nothing", hint="for example: --set textcnn.filters=128")
    return name.strip(), _value(value.strip())


def _value(text: str) -> Any:
    """As a study file would read it: 128, 1e-4, true, [2, 3, 4], kl."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UsageError(
            f"--set: {text!r} is no value", hint="e.g. 128, 1e-4, true, [2, 3, 4] or kl"
        ) from error
