"""Rows of what happened to a trial: its attempts, what was decided of it, its repeats."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kdsearch.core.records import Decision, Failure, Scores, TrialConfig, TrialState


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One lease of a trial, or of one of its repeats."""

    repeat: int
    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    ended: str | None
    """``finished``, ``given back``, ``paused``, ``lost``, ``hang``, ``crash``, ``out_of_memory`` or
    ``exception``; None while it goes on."""
    traceback: str


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """What was decided of a trial, and when."""

    repeat: int
    attempt: int
    """The attempt under way or before; 0 before the first."""
    at: datetime
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class RepeatRow:
    """A trial trained again with another seed."""

    number: int
    repeat: int
    seed: int
    config: TrialConfig
    state: TrialState
    quality: float | None
    scores: Scores | None
    validation_logits: str | None
    artifact: str | None
    epochs_run: int
    train_seconds: float | None
    attempt: int
    worker: str
    failure: Failure | None
