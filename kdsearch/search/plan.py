"""From a study's spec to one trial's configuration: the conditional space, and the first trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Choice, Dimension, Suggests, suggest_all
from kdsearch.core.spec import StudySpec, VariantSpec
from kdsearch.search.spaces import CONTROL, DEFAULT_SCHEMES, TRAINING, Spaces, registered


@dataclass(frozen=True)
class Plan:
    """What a study searches. The spec must have passed `search.check`."""

    spec: StudySpec
    spaces: Spaces = field(default_factory=registered)

    @property
    def students(self) -> Mapping[str, Mapping[str, Dimension]]:
        """What the study says about each student's parameters; without `students`, all of them."""
        return _narrowed(self.spec.students, tuple(self.spaces.students))

    @property
    def schemes(self) -> Mapping[str, Mapping[str, Dimension]]:
        """What the study says about each scheme's parameters; the control comes first, always."""
        return {CONTROL: {}, **_narrowed(self.spec.schemes, DEFAULT_SCHEMES)}

    def suggest(self, trial: Suggests) -> TrialConfig:
        """A configuration, asked of the trial under the names of `TrialConfig.params`."""
        students, schemes, training = self.students, self.schemes, self.spec.training
        student = str(Choice(tuple(students)).suggest(trial, "student"))
        student_params = suggest_all(self.spaces.students[student], students[student], trial, student)
        scheme = str(Choice(tuple(schemes)).suggest(trial, "scheme"))
        scheme_params = suggest_all(self.spaces.schemes[scheme], schemes[scheme], trial, scheme)
        learning_rate = TRAINING["learning_rate"].narrow(training.learning_rate)
        batch_size = TRAINING["batch_size"].narrow(training.batch_size)
        return TrialConfig(
            student=student,
            student_params=student_params,
            scheme=scheme,
            scheme_params=scheme_params,
            learning_rate=cast(float, learning_rate.suggest(trial, "learning_rate")),
            batch_size=cast(int, batch_size.suggest(trial, "batch_size")),
            epochs=training.epochs,
            seed=training.seed,
        )

    def first_trials(self) -> list[dict[str, str]]:
        """Every scheme with every student, the controls first, in rounds over half of the budget.

        The other parameters are the sampler's. Without these trials a sampler that has seen one fast
        student hardly tries the others; with them control and distilled are tuned alike. A budget
        smaller than one round is all first trials.
        """
        pairs = [
            {"student": student, "scheme": scheme} for scheme in self.schemes for student in self.students
        ]
        trials = self.spec.budget.trials
        rounds = max(1, trials // 2 // len(pairs))
        return (pairs * rounds)[:trials]


def _narrowed(
    variants: tuple[VariantSpec, ...] | None, default: tuple[str, ...]
) -> Mapping[str, Mapping[str, Dimension]]:
    if variants is None:
        return {name: {} for name in default}
    return {variant.type: variant.params for variant in variants}
