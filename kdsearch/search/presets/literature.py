"""Folk recipes: what articles and repositories recommend, so that a study shows what they are worth."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.search.presets.recipe import Recipe

LITERATURE: Mapping[str, Recipe] = {
    "low-loss": Recipe(
        source="Sultan et al. 2024 (2401.06356): near the best over 39 pairs of data and student",
        scheme="offline",
        params={"loss": "kl", "temperature": 1.0, "lambda": 1.0},
        low_loss_teacher=True,
    ),
    "tang": Recipe(
        source="Tang et al. 2019 (1903.12136): the distance of logits alone",
        scheme="offline",
        params={"loss": "mse", "lambda": 1.0},
    ),
    "t4": Recipe(
        source="the middle of the road in tutorials after Hinton et al. 2015",
        scheme="offline",
        params={"loss": "kl", "temperature": 4.0, "lambda": 0.5},
    ),
    "t10": Recipe(
        source="murray-z/knowledge_distillation: BERT to TextCNN",
        scheme="offline",
        params={"loss": "kl", "temperature": 10.0, "lambda": 0.9},
    ),
}
