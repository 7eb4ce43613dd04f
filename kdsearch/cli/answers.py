"""What commands answer about trials: JSON payloads and tables, made from the store's rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kdsearch.cli import output
from kdsearch.cli.within import Within, deployable
from kdsearch.core.space import encode

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy import Engine

    from kdsearch.core.records import HardwareProfile, Standing
    from kdsearch.store.reads import StudyRow, TrialRow

ROOMY = 120
"""Columns of a terminal that tables with parameters need."""
NO_STANDINGS: Mapping[int, Standing] = {}


@dataclass(frozen=True)
class Front:
    """A study with its trials, and which of them are on the front within some ceilings."""

    study: StudyRow
    rows: Sequence[TrialRow]
    within: Within
    standings: Mapping[int, Standing] = field(default_factory=dict)
    """How sure each trial's place is, by number; empty until the study is done."""

    @classmethod
    def read(cls, engine: Engine, study: StudyRow, within: Within) -> Front:
        """As it is now."""
        from kdsearch.store import reads

        standings = {standing.number: standing for standing in reads.standings(engine, study.id)}
        return cls(study, reads.trials(engine, study.id), within, standings)

    @property
    def members(self) -> list[TrialRow]:
        """The front, fastest first: filtered first, then the non-dominated ones."""
        from kdsearch.store import reads

        return reads.front([row for row in self.rows if self.within.admits(row)], within_ms=None)

    @property
    def profile(self) -> HardwareProfile | None:
        """What the latency figures are true of."""
        teacher = self.study.teacher
        figures = [teacher.latency if teacher else None, *(row.latency for row in self.rows)]
        return next((latency.profile for latency in figures if latency is not None), None)

    def data(self) -> dict[str, Any]:
        """The payload of `pareto --json`."""
        numbers = {row.number for row in self.members}
        profile = self.profile
        return {
            "study": self.study.name,
            "quality": self.study.quality_name,
            "latency": self.study.latency_name,
            "profile": None if profile is None else asdict(profile),
            "teacher": teacher_data(self.study),
            "trials": [self.trial(row, on_front=row.number in numbers) for row in self.rows],
        }

    def trial(self, row: TrialRow, *, on_front: bool) -> dict[str, Any]:
        """One trial of it for programs."""
        return trial_data(self.study, row, on_front=on_front, standing=self.standings.get(row.number))

    def human(self, *, everything: bool = False) -> Iterable[RenderableType]:
        """A heading and the table of the front, or of every measured trial."""
        members = self.members
        rows = sorted(deployable(self.rows), key=_by_latency) if everything else members
        yield self._heading(len(members))
        star = {row.number for row in members} if everything else None
        yield from trials(self.study, rows, front=star, standings=self.standings)

    def _heading(self, num_members: int) -> str:
        from rich.markup import escape

        study, profile = self.study, self.profile
        done = len(deployable(self.rows))
        ceiling = f" within {self.within}" if str(self.within) else ""
        head = f"[bold]{escape(study.name)}[/]: {num_members} on the front of {done} complete trials{ceiling}"
        if profile is None:
            return head + "\n"
        threads = "thread" if profile.threads == 1 else "threads"
        where = f"{profile.device_model}, {profile.device}, {profile.runtime}, {profile.threads} {threads}"
        return f"{head}\n[dim]{escape(f'{study.latency_name} on {where}, batch {profile.batch_size}')}[/]\n"


def _by_latency(row: TrialRow) -> tuple[float, int]:
    return row.latency_ms or 0.0, row.number


def teacher_data(study: StudyRow) -> dict[str, Any] | None:
    """The teacher's figures, None until it was scored."""
    teacher = study.teacher
    if teacher is None:
        return None
    return {"quality": teacher.quality, "latency_ms": teacher_ms(study), "size_mb": teacher.size_mb}


def teacher_text(study: StudyRow) -> str:
    """The teacher's figures in a line."""
    if study.teacher is None:
        return "not scored yet"
    figures = [f"{study.quality_name} {study.teacher.quality:.4f}"]
    if (latency_ms := teacher_ms(study)) is not None:
        figures.append(f"{study.latency_name.removesuffix('_ms')} {latency_ms:.3f} ms")
    if study.teacher.size_mb is not None:
        figures.append(f"{study.teacher.size_mb:.2f} MB")
    return ", ".join(figures)


def weak_teacher(study: StudyRow) -> str:
    """Classes that the teacher never finds, and what may help; empty where there is none."""
    recall = {} if study.teacher is None else study.teacher.scores.recall
    missed = [repr(label) for label, share in recall.items() if not share]
    if not missed:
        return ""
    tuned = (study.spec.get("teacher") or {}).get("finetune") is not None
    cure = "more `epochs`, or another `learning_rate`, under `finetune`" if tuned else "is `label_map` right"
    return f"warning: the teacher finds no validation text of {', '.join(missed)}; {cure}?"


def roomy() -> bool:
    """Whether parameters fit beside the figures: on a pipe, or on a wide terminal."""
    from rich.console import Console

    return not sys.stdout.isatty() or Console().width >= ROOMY


def params_elsewhere(name: str) -> str:
    """What stands below a table that has no room for parameters."""
    return f"parameters: on a terminal of {ROOMY} columns, or kdsearch trial show {name} TRIAL"


def teacher_ms(study: StudyRow) -> float | None:
    """The teacher's latency by the study's objective."""
    if study.teacher is None or study.teacher.latency is None:
        return None
    return study.teacher.latency.at(study.latency_name)


def speedup(study: StudyRow, row: TrialRow) -> float | None:
    """How many times faster than the teacher, under the same protocol."""
    teacher = teacher_ms(study)
    return teacher / row.latency_ms if teacher is not None and row.latency_ms else None


def trial_data(
    study: StudyRow, row: TrialRow, *, on_front: bool, standing: Standing | None = None
) -> dict[str, Any]:
    """One trial as `pareto`, `best` and `trial list` give it."""
    return {
        "trial": row.number,
        "state": row.state,
        "student": row.student,
        "scheme": row.scheme,
        "origin": row.origin,
        "params": own_params(row),
        "quality": row.quality,
        "latency_ms": row.latency_ms,
        "size_mb": row.size_mb,
        "on_front": on_front,
        "standing": None if standing is None else standing_data(standing),
        "feasible": row.feasible,
        "speedup": speedup(study, row),
        "coverage": None if row.scores is None else row.scores.coverage,
        "recall": None if row.scores is None else dict(row.scores.recall),
        "teacher_quality": None if row.teacher is None else row.teacher.quality,
        "peak_memory_mb": row.peak_memory_mb,
    }


def standing_data(standing: Standing) -> dict[str, Any]:
    """How sure a trial's quality and its place on the front are."""
    return {**asdict(standing), "seeds": list(standing.seeds), "verdict": standing.verdict}


def standing_text(standing: Standing) -> str:
    """``0.9512 (0.9401 to 0.9607) over 4 seeds: tie``."""
    seeds = f" over {len(standing.seeds)} seeds" if len(standing.seeds) > 1 else ""
    return f"{standing.quality:.4f} ({standing.low:.4f} to {standing.high:.4f}){seeds}: {standing.verdict}"


def own_params(row: TrialRow) -> dict[str, Any]:
    """Every parameter under its dotted name, but the student and the scheme themselves."""
    return {name: value for name, value in row.params.items() if name not in ("student", "scheme")}


def params_text(row: TrialRow) -> str:
    """Parameters for a table: short names where they are clear, numbers at three digits."""
    parts, own = [], own_params(row)
    for name, value in own.items():
        shown = encode(tuple(value) if isinstance(value, list) else value)
        text = f"{shown:.3g}" if isinstance(shown, float) else str(shown)
        short = name.partition(".")[2] or name
        # a scheme may have a learning rate of its own beside the trial's
        parts.append(f"{name if short != name and short in own else short} {text}")
    return ", ".join(parts)


def trials(
    study: StudyRow,
    rows: Sequence[TrialRow],
    *,
    front: set[int] | None = None,
    states: bool = False,
    standings: Mapping[int, Standing] = NO_STANDINGS,
) -> Iterable[RenderableType]:
    """The table of trials as it fits the terminal, and below it what is to be said about it."""
    from rich.text import Text

    wide = roomy()
    yield trials_table(study, rows, front=front, states=states, params=wide, standings=standings)
    if front:
        yield Text("★ on the front", style="dim")
    if not wide:
        yield Text(params_elsewhere(study.name), style="dim")


def trials_table(
    study: StudyRow,
    rows: Sequence[TrialRow],
    *,
    front: set[int] | None = None,
    states: bool = False,
    params: bool = True,
    standings: Mapping[int, Standing] = NO_STANDINGS,
) -> RenderableType:
    """Trials with their figures, the teacher below; ``front`` marks its members with a star.

    With ``states`` and room for it also what they cover, and the quality of teachers trained beside them.
    """
    from rich.text import Text

    extra = [column for column in _EXTRA if states and params and any(column.cell(row) for row in rows)]
    extra = [*_sure(standings, rows), *extra]
    figures = ["trial", study.quality_name, study.latency_name.replace("_", " "), "speed-up", "MB"]
    figures += [column.name for column in extra]
    middle = ("state",) if states else ()
    last = ("parameters",) if params else ()
    made = output.table(figures[0], "student", "scheme", *middle, *figures[1:], *last, right=figures)
    for row in rows:
        star = "" if front is None else ("★ " if row.number in front else "  ")
        faded = "dim" if front is not None and row.number not in front else ""
        cells = [f"{star}{row.number}", row.student, row.scheme]
        cells += [str(row.state)] if states else []
        cells += _figures(row.quality, row.latency_ms, speedup(study, row), row.size_mb)
        cells += [column.cell(row) for column in extra]
        cells += [params_text(row)] if params else []
        made.add_row(*(Text(cell) for cell in cells), style=faded)
    if study.teacher is not None:
        shown = _figures(study.teacher.quality, teacher_ms(study), None, study.teacher.size_mb)
        covered = [column.of_teacher(study) for column in extra]
        made.add_row("teacher", *[""] * (2 + len(middle)), *shown, *covered, style="magenta")
    return made


def _sure(standings: Mapping[int, Standing], rows: Sequence[TrialRow]) -> list[Extra]:
    """How sure quality and place are, where somebody has computed it; the seeds where there are several."""
    found = [standings[row.number] for row in rows if row.number in standings]
    if not found:
        return []

    def of(row: TrialRow, text: Callable[[Standing], str]) -> str:
        return text(standings[row.number]) if row.number in standings else ""

    several = any(len(standing.seeds) > 1 for standing in found)
    seeds = [Extra("seeds", lambda row: of(row, lambda s: str(len(s.seeds))))] if several else []
    name = "mean (95 %)" if several else "95 %"
    mean = (lambda s: f"{s.quality:.3f} ({_interval(s)})") if several else _interval
    return [
        Extra(name, lambda row: of(row, mean)),
        *seeds,
        Extra("verdict", lambda row: of(row, lambda s: s.verdict)),
    ]


def _interval(standing: Standing) -> str:
    return f"{standing.low:.3f} to {standing.high:.3f}"


class Extra(NamedTuple):
    """A column that is shown where a trial has something to say in it."""

    name: str
    cell: Callable[[TrialRow], str]
    of_teacher: Callable[[StudyRow], str] = lambda study: ""


def recipe(row: TrialRow) -> str:
    """Of a trial that a preset chose, e.g. ``literature/tang``; else empty."""
    return row.origin.removeprefix("preset:") if row.origin.startswith("preset:") else ""


_EXTRA = (
    Extra(
        "coverage",
        lambda row: _known(row.scores.coverage if row.scores else None),
        lambda study: _known(study.teacher.scores.coverage if study.teacher else None),
    ),
    Extra("recipe", recipe),
    Extra("its teacher", lambda row: _known(row.teacher.quality if row.teacher else None)),
)


def _known(value: float | None) -> str:
    return "" if value is None else output.figure(value, 4)


def _figures(
    quality: float | None, latency_ms: float | None, ratio: float | None, size_mb: float | None
) -> list[str]:
    return [
        output.figure(quality, 4),
        output.figure(latency_ms, 3),
        "" if ratio is None else f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×",
        output.figure(size_mb, 2),
    ]
