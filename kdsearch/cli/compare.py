"""`kdsearch trial compare`: two to four trials side by side, and how sure their differences are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import answers, output
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.cli.within import Within
from kdsearch.core.errors import KdsearchError, UsageError
from kdsearch.core.space import encode

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdsearch.export.compare import Compared
    from kdsearch.store.connect import Store
    from kdsearch.store.reads import StudyRow, TrialRow

MOST = 4
MOST_LABELS = 12
"""Recall of each class is shown up to so many classes."""


def compare(
    options: Options,
    study: StudyArgument,
    trials: Annotated[
        list[int], typer.Argument(metavar="TRIAL TRIAL...", help="Two to four numbers.", show_default=False)
    ],
) -> None:
    """Compare two to four trials: what differs in their parameters, their figures, how sure that is.

    Differences of quality are paired, on the same validation rows, to the first of the trials, with their
    95 % intervals; where an interval holds 0, it is a tie.

    Example: kdsearch trial compare sms-spam 12 17
    """
    _check(study, trials)
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        found = [reads.trial(store.engine, row.id, number) for number in trials]
        front = answers.Front.read(store.engine, row, Within())
        paired, why = _paired(store, row, found)
    differing = differing_params(found)
    data = _data(front, found, differing, paired)
    output.show(
        options,
        "compare",
        data,
        human=lambda: _human(row, found, differing, paired),
        ids=trials,
        rows=data["trials"],
    )
    if not options.json:
        for text in filter(None, (why, _verdict(row, paired))):
            output.say(text, options=options)


def _data(
    front: answers.Front,
    trials: Sequence[TrialRow],
    differing: dict[str, list[Any]],
    paired: Sequence[Compared],
) -> dict[str, Any]:
    members = {member.number for member in front.members}
    return {
        "study": front.study.name,
        "trials": [front.trial(trial, on_front=trial.number in members) for trial in trials],
        "differing": differing,
        "compared": [{**asdict(each), "verdict": each.verdict or None} for each in paired],
    }


def _check(study: str, trials: Sequence[int]) -> None:
    if not 2 <= len(set(trials)) <= MOST or len(set(trials)) < len(trials):
        raise UsageError(
            f"{', '.join(map(str, trials))}: two to {MOST} different trials are compared",
            hint=f"kdsearch trial compare {study} 0 1",
        )


def _paired(store: Store, study: StudyRow, trials: Sequence[TrialRow]) -> tuple[list[Compared], str]:
    """The comparison, or why there is none."""
    if sum(trial.validation_logits is not None for trial in trials) < 2:
        return [], "no paired difference: fewer than two of them have validation logits"
    if study.prepared is None:
        return [], "no paired difference: the study is not prepared yet"
    from kdsearch.export.compare import compare as compared

    try:
        return compared(store, study, trials), ""
    except KdsearchError as error:
        return [], f"no paired difference: {error.what}"


def differing_params(trials: Sequence[TrialRow]) -> dict[str, list[Any]]:
    """Parameters in which at least two of them differ; None where a trial has no such parameter."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    values = {name: [trial.params.get(name) for trial in trials] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


# ---------------------------------------------------------------- for people


def _human(
    study: StudyRow, trials: Sequence[TrialRow], differing: dict[str, list[Any]], paired: list[Compared]
) -> Iterator[RenderableType]:
    from rich.text import Text

    names = [f"trial {trial.number}" for trial in trials]
    made = output.table("", *names, right=names)
    if differing:
        for name, values in differing.items():
            made.add_row(name, *map(_value, values))
    else:
        made.add_row(Text("the same parameters", style="dim"))
    made.add_row()
    for name, cells in _figures(study, trials):
        if any(cells):
            made.add_row(name, *cells)
    by_number = {each.trial: each for each in paired}
    for name, cells in _sure(trials, by_number):
        if any(cells):
            made.add_row(name, *cells)
    yield made


def _value(value: Any) -> str:
    if value is None:
        return ""
    shown = encode(tuple(value) if isinstance(value, list) else value)
    return f"{shown:.3g}" if isinstance(shown, float) else str(shown)


def _figures(study: StudyRow, trials: Sequence[TrialRow]) -> Iterator[tuple[str, list[str]]]:
    yield "state", [str(trial.state) for trial in trials]
    yield study.quality_name, [_known(trial.quality, 4) for trial in trials]
    for name in ("accuracy", "macro_f1", "agreement", "coverage"):
        if name != study.quality_name:
            yield name, [_known(getattr(trial.scores, name, None), 4) for trial in trials]
    labels = list(dict.fromkeys(name for t in trials if t.scores is not None for name in t.scores.recall))
    for label in labels if len(labels) <= MOST_LABELS else ():
        yield f"recall {label}", [_known(t.scores.recall.get(label), 3) if t.scores else "" for t in trials]
    for name in ("p50_ms", "p90_ms", "p99_ms"):
        yield name.replace("_", " "), [_known(getattr(t.latency, name, None), 3) for t in trials]
    ratios = [answers.speedup(study, trial) for trial in trials]
    yield "speed-up", ["" if ratio is None else f"{ratio:.1f}×" for ratio in ratios]
    yield "MB", [_known(trial.size_mb, 2) for trial in trials]
    yield "parameters", [f"{t.latency.num_params:,}" if t.latency else "" for t in trials]
    yield "epochs", [_count(trial.epochs_run) for trial in trials]
    yield "rows seen", [_count(trial.rows_seen) for trial in trials]
    yield "trained s", [_known(trial.train_seconds, 1) for trial in trials]


def _known(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _sure(trials: Sequence[TrialRow], paired: dict[int, Compared]) -> Iterator[tuple[str, list[str]]]:
    found = [paired.get(trial.number) for trial in trials]
    several = any(each is not None and each.seeds > 1 for each in found)
    if several:
        yield "mean over seeds", [f"{each.quality:.4f} ({each.seeds})" if each else "" for each in found]
    yield "95 %", ["" if each is None else _bounds(*each.interval) for each in found]
    gains = [None if each is None else each.gain for each in found]
    yield "difference", ["" if gain is None else f"{gain.value:+.4f}" for gain in gains]
    yield "its 95 %", ["" if gain is None else _bounds(gain.low, gain.high, sign="+") for gain in gains]
    yield "verdict", ["" if each is None else each.verdict for each in found]
    yield "right alone", [_count(each.right_alone) if each else "" for each in found]
    yield "first right alone", [_count(each.first_alone) if each else "" for each in found]


def _bounds(low: float, high: float, *, sign: str = "") -> str:
    return f"{low:{sign}.4f} to {high:{sign}.4f}"


def _verdict(study: StudyRow, paired: list[Compared]) -> str:
    """In a sentence for each."""
    if not paired:
        return ""
    first, *others = paired
    words = {"tie": "tied with", "better": "better than", "worse": "worse than"}
    said = [f"trial {each.trial} is {words[each.verdict]} trial {first.trial}" for each in others]
    return f"{study.quality_name}: {', '.join(said)}" if said else ""
