"""Why nothing new is begun: what of a study's budget is spent, or that its front has stopped growing."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.core.records import Tried
from kdsearch.core.spec import StudySpec
from kdsearch.search.plateau import is_flat
from kdsearch.store.studies import BudgetState

EXHAUSTED = "every configuration of the space was tried, or is known not to reach the front"
SETTLED_OR_EXHAUSTED = "its front has stopped growing, or no configuration is left that could change it"


def room_for(budget: BudgetState, epochs: int) -> bool:
    """Whether so many epochs more fit the budget; those that are promised to others are spent."""
    return budget.max_epochs is None or budget.epochs_reserved + epochs <= budget.max_epochs


def spent(budget: BudgetState, spec: StudySpec) -> str:
    """Why no further trial fits the budget; empty while one does."""
    if budget.out_of_time:
        return "its hours are spent"
    if budget.num_trials >= budget.max_trials:
        return f"its budget of {budget.max_trials} trials is spent"
    epochs = spec.training.epochs
    if not room_for(budget, epochs):
        left = (budget.max_epochs or 0) - budget.epochs_reserved
        return f"its budget of {budget.max_epochs} epochs has {left} left, and a trial takes {epochs}"
    return ""


def settled(spec: StudySpec, tried: Sequence[Tried], floor: float) -> str:
    """Why no further trial is worth it; empty unless the study asks to stop at a plateau, and is there."""
    plateau = spec.search.plateau
    if plateau is None or not is_flat(tried, plateau, floor):
        return ""
    return f"the last {plateau.trials} finished trials added less than {plateau.gain:.2%} to the front"
