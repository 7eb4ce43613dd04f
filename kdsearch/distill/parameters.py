"""Parameters that several schemes have, and how a study's facts narrow them."""

from __future__ import annotations

from dataclasses import replace

from kdsearch.core.facts import Facts
from kdsearch.core.space import Choice, Dimension, Fixed, Param, Range, Space

LOSS = Param(
    kind="str",
    default=Choice(("kl", "mse")),
    allowed=("kl", "mse"),
    doc="distance to the teacher's logits",
)
SOFTENING = Param(
    kind="float",
    default=Range(1.0, 16.0, log=True),
    low=1.0,
    high=64.0,
    doc="softens both distributions; its square keeps the gradient's size",
)
TEMPERATURE = replace(SOFTENING, when=("loss", "kl"))
LAMBDA = Param(
    kind="float",
    default=Range(0.1, 1.0),
    low=0.0,
    high=1.0,
    open_low=True,
    doc="weight of the soft term; the hard label has 1 - lambda (0 would be `none` again)",
)
POOLS = Param(
    kind="str",
    default=Choice(("train",)),
    allowed=("train", "train+unlabelled", "train+augmented", "train+unlabelled+augmented"),
    doc="what the student is trained on; rows without a label feel the soft term alone",
)
DISTANCE: Space = {"loss": LOSS, "temperature": TEMPERATURE, "lambda": LAMBDA}
"""(1-λ) · CE + λ · the distance to a teacher's logits."""


def with_pools(space: Space, facts: Facts) -> Space:
    """The space with `pools` narrowed to what the study has; any of them may be tried."""
    choices = facts.pool_choices
    return {**space, "pools": replace(space["pools"], allowed=choices, default=Choice(choices))}


def up_to(high: int) -> Dimension:
    """1, 2, ... high."""
    return Range(1, high, integer=True) if high > 1 else Fixed(1)
