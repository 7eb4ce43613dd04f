"""From a study's spec to one trial's configuration: the conditional space, and the first trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, cast

from kdsearch.core.records import TrialConfig
from kdsearch.core.space import Choice, Dimension, Suggests, suggest_all
from kdsearch.core.spec import StudySpec, VariantSpec
from kdsearch.search.presets import PRESETS
from kdsearch.search.presets.recipe import Recipe, dimensions_of
from kdsearch.search.spaces import CONTROL, DEFAULT_SCHEMES, TRAINING, Spaces, registered

Origin: TypeAlias = str
"""Who chose a trial: `CONTROLLED`, `STRATIFIED`, ``preset:literature/tang``, `SAMPLED` or `ENQUEUED`."""
CONTROLLED, STRATIFIED, SAMPLED, ENQUEUED = "control", "stratified", "sampler", "enqueued"


class First(NamedTuple):
    """A trial that is tried before the sampler has a say."""

    origin: Origin
    params: dict[str, bool | int | float | str]
    """What is decided of it, under Optuna's names; the rest is sampled."""


@dataclass(frozen=True)
class Plan:
    """What a study searches. The spec must have passed `search.check` against these spaces."""

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

    def first_trials(self) -> list[First]:
        """Known recipes with every student; then every scheme with every student, the controls first.

        The pairs come in rounds over half of what the recipes leave of the budget, at least once; their
        other parameters are the sampler's. Without these trials a sampler that has seen one fast
        student hardly tries the others; with them control and distilled are tuned alike. A budget
        smaller than that is all first trials.
        """
        recipes, pairs, trials = self._from_presets(), self._pairs(), self.spec.budget.trials
        rounds = max(1, (trials - len(recipes)) // 2 // len(pairs))
        return (recipes + pairs * rounds)[:trials]

    def warnings(self) -> list[str]:
        """For the author: recipes that are left out, and a budget that ends before the first trials do."""
        found = [
            f"preset {preset}/{name} is left out: {why}"
            for preset, name, recipe in self._recipes()
            if (why := self._misfit(recipe))
        ]
        first = len(self._from_presets()) + len(self._pairs())
        if self.spec.search.presets and self.spec.budget.trials < first:
            found.append(
                f"{self.spec.budget.trials} trials end before every recipe and every scheme were tried with "
                f"every student: that takes {first}"
            )
        return found

    def _pairs(self) -> list[First]:
        return [
            First(origin_of(scheme), {"student": student, "scheme": scheme})
            for scheme in self.schemes
            for student in self.students
        ]

    def _from_presets(self) -> list[First]:
        return [
            First(
                f"preset:{preset}/{name}",
                {
                    "student": student,
                    "scheme": recipe.scheme,
                    **dict(recipe.searched(self._dimensions(recipe.scheme))),
                },
            )
            for preset, name, recipe in self._recipes()
            if not self._misfit(recipe)
            for student in self.students
        ]

    def _recipes(self) -> list[tuple[str, str, Recipe]]:
        return [
            (preset, name, recipe)
            for preset in self.spec.search.presets
            for name, recipe in PRESETS[preset].items()
        ]

    def _misfit(self, recipe: Recipe) -> str:
        if recipe.scheme not in self.schemes:
            return f"the study does not try {recipe.scheme}"
        return recipe.misfit(self.spec, self._dimensions(recipe.scheme))

    def _dimensions(self, scheme: str) -> dict[str, Dimension]:
        return dimensions_of(self.spaces.schemes[scheme], self.schemes[scheme])


def origin_of(scheme: str) -> Origin:
    """Of a trial whose student and scheme alone were decided."""
    return CONTROLLED if scheme == CONTROL else STRATIFIED


def _narrowed(
    variants: tuple[VariantSpec, ...] | None, default: tuple[str, ...]
) -> Mapping[str, Mapping[str, Dimension]]:
    if variants is None:
        return {name: {} for name in default}
    return {variant.type: variant.params for variant in variants}
