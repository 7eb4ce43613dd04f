"""What there is to tell of one trial: why it ended, who worked on it, what it left, the commands for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboard import wording
from kdsearch.core.records import Decision, Standing
from kdsearch.store.reads import EpochRow, StudyRow, TrialRow
from kdsearch.store.rows import AttemptRow, DecisionRow, RepeatRow

Row = dict[str, Any]
"""Of a table: heading to cell."""
ENDS = ("pause", "stop", "reject")
ORIGINS = {
    "control": "control arm: shows whether distilling pays",
    "stratified": "one of the first, one per student and scheme",
    "sampler": "the sampler",
}


@dataclass(frozen=True, kw_only=True)
class Story:
    """Everything on record of a trial, in order of time; decisions and attempts are those of repeats, too."""

    trial: TrialRow
    epochs: Sequence[EpochRow]
    decisions: Sequence[DecisionRow]
    attempts: Sequence[AttemptRow]
    repeats: Sequence[RepeatRow]
    standing: Standing | None
    artifact_bytes: Mapping[str, int]

    @property
    def own_decisions(self) -> list[Decision]:
        """Those of the trial itself."""
        return [row.decision for row in self.decisions if row.repeat == 0]


def rungs(study: StudyRow) -> list[int]:
    """Epochs after which trials are compared; none where nothing stops a trial early."""
    search: Mapping[str, Any] = study.spec.get("search") or {}
    if search.get("pruner", "none") == "none":
        return []
    spec = {"first": 1, "factor": 3, **(search.get("rungs") or {})}
    last = int((study.spec.get("training") or {}).get("epochs", 1))
    found, rung = [], int(spec["first"])
    while rung < last:
        found.append(rung)
        rung *= int(spec["factor"])
    return found


def best_so_far(story: Story) -> float | None:
    """The best quality of an epoch; None before the first scored one."""
    return max((epoch.scores.quality for epoch in story.epochs if epoch.scores is not None), default=None)


# ---------------------------------------------------------------- how it ended


def origin(trial: TrialRow) -> str:
    """Who chose it, in words."""
    if not trial.origin:
        return "not recorded"
    return ORIGINS.get(trial.origin, trial.origin.replace("preset:", "the preset "))


def ending(story: Story) -> str | None:
    """Why it is not complete, in a sentence; None for one that is, or that goes on."""
    trial = story.trial
    if trial.failure is not None:
        return f"Failed: {trial.failure.message}"
    if trial.state not in ("paused", "stopped", "rejected"):
        return None
    reasons = [decision for decision in story.own_decisions if decision.action in ENDS]
    if not reasons:
        return f"{trial.state.capitalize()}; no reason was recorded."
    last = reasons[-1]
    after = "" if last.epoch is None else f" after epoch {last.epoch}"
    said = f"{trial.state.capitalize()}{after} by the rule {last.rule!r}: {last.reason}"
    if last.rule == "closed" and len(reasons) > 1:
        said += f". Before that: {reasons[-2].reason}"
    return said


# ---------------------------------------------------------------- tables


def params_rows(trial: TrialRow) -> list[Row]:
    """The parameters, as in the study file."""
    return [{"parameter": name, "value": written(value)} for name, value in trial.params.items()]


def written(value: Any) -> str:
    """A parameter or an input of a decision as people read it."""
    if value is None:
        return wording.NONE
    if isinstance(value, (tuple, list)):
        return "-".join(map(str, value))
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def decision_rows(decisions: Sequence[DecisionRow]) -> list[Row]:
    """Every decision with all figures that were looked at."""
    return [
        {
            "when": row.at,
            "after epoch": row.decision.epoch,
            "decision": row.decision.action,
            "rule": row.decision.rule,
            "of": _of(row.repeat),
            "reason": row.decision.reason,
            "figures": ", ".join(f"{name} {written(found)}" for name, found in row.decision.inputs.items()),
        }
        for row in decisions
    ]


def attempt_rows(attempts: Sequence[AttemptRow]) -> list[Row]:
    """Who worked on it, from when to when."""
    return [
        {
            "attempt": row.attempt,
            "of": _of(row.repeat),
            "worker": row.worker,
            "from": row.started_at,
            "took": wording.duration(_seconds(row.started_at, row.ended_at)),
            "ended": row.ended or "goes on",
        }
        for row in attempts
    ]


def _of(repeat: int) -> str:
    return f"repeat {repeat}" if repeat else "the trial"


def _seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else (end - start).total_seconds()


def repeat_rows(study: StudyRow, trial: TrialRow, repeats: Sequence[RepeatRow]) -> list[Row]:
    """The trial and its further trainings, a seed each."""
    seed = (study.spec.get("training") or {}).get("seed")
    first = {"seed": seed, "state": trial.state, study.quality_name: trial.quality}
    return [first, *({"seed": r.seed, "state": r.state, study.quality_name: r.quality} for r in repeats)]


def artifact_rows(story: Story) -> list[Row]:
    """What it left in the artifact store, by the SHA-256 that names it."""
    trial = story.trial
    named = [("trained student", trial.artifact), ("validation logits", trial.validation_logits)]
    for repeat in story.repeats:
        named += [(f"student, seed {repeat.seed}", repeat.artifact)]
        named += [(f"validation logits, seed {repeat.seed}", repeat.validation_logits)]
    return [
        {"artifact": what, "size (MB)": _mb(story.artifact_bytes.get(sha256)), "SHA-256": sha256}
        for what, sha256 in named
        if sha256 is not None
    ]


def digests(trial: TrialRow, repeats: Sequence[RepeatRow]) -> set[str]:
    """The artifacts of a trial and its repeats."""
    named = [trial.artifact, trial.validation_logits]
    named += [sha256 for repeat in repeats for sha256 in (repeat.artifact, repeat.validation_logits)]
    return {sha256 for sha256 in named if sha256 is not None}


def _mb(size: int | None) -> float | None:
    return None if size is None else size / 1e6


# ---------------------------------------------------------------- to copy


def commands(study: StudyRow, trial: TrialRow) -> list[str]:
    """What to type for this trial."""
    name, number = shlex.quote(study.name), trial.number
    found = [f"kdsearch trial show {name} {number}"]
    if trial.state == "complete":
        found.insert(0, f"kdsearch export {name} --trial {number} --to exported/{name}-{number}")
        found.append(f"kdsearch trial rerun {name} {number} --seeds 1,2,3")
    if trial.state == "failed":
        found.append(f"kdsearch trial retry {name} {number}")
    return found
