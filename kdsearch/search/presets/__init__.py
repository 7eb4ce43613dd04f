"""Presets by their YAML name: sets of recipes that are tried first. One file and one entry each."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.search.presets.literature import LITERATURE
from kdsearch.search.presets.recipe import Recipe

PRESETS: dict[str, Mapping[str, Recipe]] = {"literature": LITERATURE}
