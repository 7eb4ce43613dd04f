"""What a sampler is made of: an Optuna sampler of one trial, reseeded by the study's seed and its number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from optuna.samplers import BaseSampler

from kdsearch.search.known import Known
from kdsearch.search.plan import Plan


@dataclass(frozen=True, kw_only=True)
class SamplerSetup:
    """Of one question: which trial is to be proposed, and what is known."""

    plan: Plan
    number: int
    known: Known

    @property
    def seed(self) -> int:
        """A seed of its own for each trial of a study.

        Equal seeds in two processes would propose the same; one seed per trial number never does.
        """
        text = f"{self.plan.spec.search.seed}:{self.number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    @property
    def study_seed(self) -> int:
        """The same for all trials of the study, for sequences that go on."""
        return self.plan.spec.search.seed


MakeSampler: TypeAlias = Callable[[SamplerSetup], BaseSampler]
