"""The pruners by their YAML name: a further one is one file here and one entry below."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.search.pruners.asha import asha
from kdsearch.search.pruners.base import MakePruner
from kdsearch.search.pruners.front import FrontPruner
from kdsearch.search.pruners.mo_asha import mo_asha
from kdsearch.search.pruners.mo_asha_promotion import mo_asha_promotion
from kdsearch.search.pruners.none import NoPruner

PRUNERS: Mapping[str, MakePruner] = {
    "none": NoPruner,
    "front": FrontPruner,
    "mo_asha": mo_asha,
    "mo_asha_promotion": mo_asha_promotion,
    "asha": asha,
}
