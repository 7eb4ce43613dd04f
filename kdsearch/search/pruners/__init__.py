"""The pruners by their YAML name: a further one is one file here and one entry below."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.search.pruners.base import MakePruner
from kdsearch.search.pruners.none import NoPruner

PRUNERS: Mapping[str, MakePruner] = {
    "none": NoPruner,
}
