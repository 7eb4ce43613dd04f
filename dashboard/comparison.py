"""Two to four trials as columns of a table, and the box that names them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from dashboard import wording
from dashboard.story import Story
from kdsearch.core.records import Scores
from kdsearch.store.reads import StudyRow, TrialRow

FEWEST, MOST = 2, 4


def parse(asked: str, known: Collection[int]) -> tuple[list[int], str | None]:
    """The numbers of ``3, 7``, each once and at most so many, and what was wrong with the others."""
    words = [word for word in re.split(r"[,;\s]+", asked.strip()) if word]
    strange = [word for word in words if not (word.isascii() and word.isdigit() and len(word) < 10)]
    if strange:
        return [], f"{strange[0][:20]!r} is no trial's number. Write numbers with commas: 3, 7"
    numbers = list(dict.fromkeys(map(int, words)))
    missing = [number for number in numbers if number not in known]
    there = [number for number in numbers if number in known]
    if missing:
        return there[:MOST], f"The study has no trial {missing[0]}."
    if len(there) > MOST:
        return there[:MOST], f"At most {MOST} trials fit side by side: the first {MOST} are shown."
    if len(there) == 1:
        return there, "One trial is nothing to compare: name another one."
    return there, None


def figure_rows(study: StudyRow, told: Sequence[Story], front: Collection[int]) -> list[dict[str, str]]:
    """What each trial is worth, a row per figure; rows that no trial has are left out."""
    rows = []
    for name, of in _figures(study, front):
        cells = [of(each) for each in told]
        if set(cells) != {wording.NONE}:
            heads = [f"trial {each.trial.number}" for each in told]
            rows.append({"figure": name, **dict(zip(heads, cells, strict=True))})
    return rows


def _figures(study: StudyRow, front: Collection[int]) -> list[tuple[str, Any]]:
    def ms(name: str) -> Any:
        return lambda s: wording.NONE if s.trial.latency is None else wording.ms(s.trial.latency.at(name))

    def score(name: str) -> Any:
        return lambda s: _score(s.trial.scores, name)

    return [
        ("state", lambda s: _state(s.trial, front)),
        (f"quality ({study.quality_name})", lambda s: wording.share(s.trial.quality)),
        ("95 % interval of its mean", _interval),
        ("accuracy", score("accuracy")),
        ("macro-F1", score("macro_f1")),
        ("agreement with the teacher", score("agreement")),
        ("coverage", score("coverage")),
        ("latency p50", ms("p50_ms")),
        ("latency p90", ms("p90_ms")),
        ("latency p99", ms("p99_ms")),
        ("size", lambda s: wording.mb(s.trial.size_mb)),
        ("parameters", lambda s: wording.count(s.trial.latency.num_params if s.trial.latency else None)),
        ("kept epoch", lambda s: wording.NONE if s.trial.best_epoch is None else str(s.trial.best_epoch)),
        ("rows seen", lambda s: wording.count(s.trial.rows_seen)),
        ("training took", lambda s: wording.duration(s.trial.train_seconds)),
    ]


def _score(scores: Scores | None, name: str) -> str:
    return wording.share(None if scores is None else getattr(scores, name))


def _state(trial: TrialRow, front: Collection[int]) -> str:
    if trial.state != "complete":
        return trial.state
    if not trial.feasible:
        return "over a limit"
    return "front" if trial.number in front else "dominated"


def _interval(told: Story) -> str:
    standing = told.standing
    if standing is None:
        return wording.NONE
    return f"{standing.low:.4f} to {standing.high:.4f}, {wording.plural(len(standing.seeds), 'training')}"
